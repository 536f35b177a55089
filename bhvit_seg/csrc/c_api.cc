// The engine as a C library: nothing is thrown out of it.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <thread>

#include "dispatch.h"
#include "error.h"
#include "include/bhvit_seg.h"
#include "model.h"
#include "self_test.h"
#include "tensor_file.h"

struct bhvit_model {
  bhvit_model(const bhvit::TensorFile& file, int threads)
      : model(file, threads, bhvit::choose_kernels("")), meta(file.meta()) {}
  bhvit::Model model;
  const std::string meta;
};

namespace {

using bhvit::Error;

thread_local char error_text[1024] = "";

// What `work` returns, or `failure` if it throws.
template <typename Result, typename Work>
Result guarded(Result failure, const Work& work) noexcept {
  const auto keep = [](const char* text) {
    std::snprintf(error_text, sizeof(error_text), "%s", text);
  };
  try {
    return work();
  } catch (const std::bad_alloc&) {
    keep("there is not enough memory");
  } catch (const std::exception& error) {
    keep(error.what());
  } catch (...) {
    keep("something unknown failed");
  }
  return failure;
}

template <typename T>
T& given(T* pointer, const char* name) {
  if (!pointer) throw Error(std::string(name) + " is NULL");
  return *pointer;
}

bhvit::Image image_of(const void* pixels, bhvit_type type, int height, int width) {
  if (!pixels) throw Error("image is NULL");
  bhvit::Model::check_size(height, width);
  if (type == BHVIT_UINT8) return {static_cast<const uint8_t*>(pixels), nullptr, height, width};
  if (type == BHVIT_FLOAT32) return {nullptr, static_cast<const float*>(pixels), height, width};
  throw Error("type is " + std::to_string(static_cast<int>(type)) +
              ": give BHVIT_UINT8 or BHVIT_FLOAT32");
}

template <typename Get>
auto get(const bhvit_model* model, decltype(std::declval<Get>()(*model)) none, const Get& of) {
  return guarded(none, [&] { return of(given(model, "model")); });
}

}  // namespace

const char* bhvit_version() { return BHVIT_VERSION; }

const char* bhvit_error() { return error_text; }

bhvit_model* bhvit_load(const char* path, int threads) {
  return guarded<bhvit_model*>(nullptr, [&] {
    const int cores = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 256);
    const bhvit::TensorFile file(&given(path, "path"));
    return new bhvit_model(file, threads ? threads : cores);
  });
}

void bhvit_free(bhvit_model* model) { delete model; }

int bhvit_channels(const bhvit_model* model) {
  return get(model, -1, [](auto& m) { return m.model.architecture().in_channels; });
}

int bhvit_classes(const bhvit_model* model) {
  return get(model, -1, [](auto& m) { return m.model.architecture().classes; });
}

int bhvit_threads(const bhvit_model* model) {
  return get(model, -1, [](auto& m) { return m.model.threads(); });
}

const char* bhvit_instruction_set(const bhvit_model* model) {
  return get(model, nullptr, [](auto& m) { return m.model.instruction_set(); });
}

const char* bhvit_meta(const bhvit_model* model) {
  return get(model, nullptr, [](auto& m) { return m.meta.c_str(); });
}

int bhvit_label(bhvit_model* model, const void* image, bhvit_type type, int height, int width,
                uint8_t* labels) {
  return guarded(-1, [&] {
    given(model, "model")
        .model.predict(image_of(image, type, height, width), &given(labels, "labels"));
    return 0;
  });
}

int bhvit_logits(bhvit_model* model, const void* image, bhvit_type type, int height, int width,
                 float* logits) {
  return guarded(-1, [&] {
    given(model, "model")
        .model.logits(image_of(image, type, height, width), &given(logits, "logits"));
    return 0;
  });
}

int bhvit_self_test() {
  return guarded(-1, [] {
    const bhvit::Kernels& kernels = bhvit::choose_kernels("");
    const std::string difference = bhvit::self_test(kernels);
    if (!difference.empty()) {
      throw Error(std::string("the kernels of ") + kernels.name +
                  " do not compute what the serial ones do: " + difference);
    }
    return 0;
  });
}
