// The engine as the Python module bhvit_seg.native._engine.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <thread>
#include <utility>

#include "dispatch.h"
#include "error.h"
#include "model.h"

namespace py = pybind11;

namespace bhvit {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Takes the interpreter lock back. At the end of the interpreter Python ends other threads from
// in here, by unwinding their stacks: pybind11's gil_scoped_release is a destructor, which may not
// be unwound, so the process would abort; and what was unwound would give up references to Python
// objects without the lock. Such a thread sleeps until the process ends, as in Python 3.14.
void take_lock(PyThreadState* state) {
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

// Calls `work` without the interpreter lock.
template <typename Work>
void without_lock(const Work& work) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
  take_lock(state);
  if (error) std::rethrow_exception(error);
}

std::pair<const uint8_t*, size_t> bytes_of(const py::bytes& content) {
  return {reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(content.ptr())),
          static_cast<size_t>(PyBytes_GET_SIZE(content.ptr()))};
}

// Meta data and, by name, type (as in the file), shape and offset of each tensor.
py::tuple parse(const py::bytes& content, const std::string& path) {
  const auto [bytes, size] = bytes_of(content);
  const TensorFile file(bytes, size, path);
  py::dict tensors;
  for (const auto& [name, tensor] : file.tensors())
    tensors[py::str(name)] = py::make_tuple(static_cast<int>(tensor.type),
                                            py::tuple(py::cast(tensor.shape)), tensor.offset);
  return py::make_tuple(py::bytes(file.meta()), tensors);
}

// A model, and what its file says about it.
struct Engine {
  Engine(const TensorFile& file, int threads, const std::string& isa)
      : model(file, threads, isa), meta(file.meta()) {}
  Model model;
  std::string meta;
};

std::unique_ptr<Engine> load(const py::bytes& content, const std::string& path, int threads,
                             const std::string& isa) {
  std::unique_ptr<Engine> engine;
  without_lock([&, bytes = bytes_of(content)] {
    engine = std::make_unique<Engine>(TensorFile(bytes.first, bytes.second, path), threads, isa);
  });
  return engine;
}

Image image_of(const py::array& array, int channels) {
  if (array.ndim() != 3 || array.shape(2) != channels) {
    throw Error("an image is an array of height x width x " + std::to_string(channels) +
                " for this model, and this one has " + std::to_string(array.ndim()) +
                " dimensions" +
                (array.ndim() == 3 ? " and " + std::to_string(array.shape(2)) + " channels" : ""));
  }
  Model::check_size(array.shape(0), array.shape(1));
  Image image = {nullptr, nullptr, static_cast<int>(array.shape(0)),
                 static_cast<int>(array.shape(1))};
  if (!(array.flags() & py::array::c_style)) {
    throw Error("an image has to be contiguous: pass numpy.ascontiguousarray(image)");
  }
  if (py::isinstance<py::array_t<uint8_t>>(array)) {
    image.bytes = static_cast<const uint8_t*>(array.data());
  } else if (py::isinstance<py::array_t<float>>(array)) {
    image.floats = static_cast<const float*>(array.data());
  } else {
    throw Error("an image has values of type uint8 or float32, and this one has " +
                std::string(py::str(array.dtype())));
  }
  return image;
}

Array<uint8_t> predict(Engine& engine, const py::array& array) {
  const Image image = image_of(array, engine.model.architecture().in_channels);
  Array<uint8_t> labels({image.height, image.width});
  uint8_t* const out = labels.mutable_data();
  without_lock([&] { engine.model.predict(image, out); });
  return labels;
}

Array<float> logits(Engine& engine, const py::array& array) {
  const Architecture& arch = engine.model.architecture();
  const Image image = image_of(array, arch.in_channels);
  Array<float> values({arch.classes, div_up(image.height, 4), div_up(image.width, 4)});
  float* const out = values.mutable_data();
  without_lock([&] { engine.model.logits(image, out); });
  return values;
}

Array<uint8_t> label(Engine& engine, const Array<float>& logits) {
  if (logits.ndim() != 3 || logits.size() == 0 || logits.shape(0) > 256) {
    throw Error("logits are an array of at most 256 classes x height x width");
  }
  Model::check_size(4 * logits.shape(1), 4 * logits.shape(2));
  const auto height = static_cast<int>(logits.shape(1)), width = static_cast<int>(logits.shape(2));
  Array<uint8_t> labels({4 * height, 4 * width});
  uint8_t* const out = labels.mutable_data();
  without_lock([&, values = logits.data(), classes = static_cast<int>(logits.shape(0))] {
    engine.model.label(values, classes, height, width, out);
  });
  return labels;
}

Profile profile(Engine& engine, const py::array& array) {
  const Image image = image_of(array, engine.model.architecture().in_channels);
  Profile profile;
  without_lock([&] { profile = engine.model.profile(image); });
  return profile;
}

// Products a second of one core, binary and float, in loops on registers: (binary, float).
std::pair<double, double> limits(const std::string& isa) {
  const Kernels& kernels = choose_kernels(isa);
  alignas(64) uint32_t words[kLanes] = {1, 2, 3};
  alignas(64) float floats[kLanes] = {0.5f, 0.25f};
  const auto best = [](auto&& busy) {
    double most = 0;
    for (int i = 0; i < 20; ++i) {
      const auto start = std::chrono::steady_clock::now();
      const auto products = static_cast<double>(busy());
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      most = std::max(most, products / seconds.count());
    }
    return most;
  };
  std::pair<double, double> products;
  without_lock([&] {
    products = {best([&] { return kernels.busy_count(1 << 20, words); }),
                best([&] { return kernels.busy_multiply(1 << 20, floats); })};
  });
  return products;
}

}  // namespace
}  // namespace bhvit

PYBIND11_MODULE(_engine, m) {
  using namespace bhvit;
  m.doc() = "Runs packed segmentors; use bhvit_seg.native.";
  py::register_exception<Error>(m, "Error", PyExc_ValueError);
  m.def("instruction_sets", &instruction_sets, "Those this processor can run, best first.");
  m.def("known_instruction_sets", &known_instruction_sets, "Those of all processors.");
  m.def("limits", &limits, py::arg("isa") = "",
        "Binary and float products a second of one core, at best.");
  m.def("parse", &parse, py::arg("content"), py::arg("path"));
  const auto of = [](auto get) {
    return [get](const Engine& engine) { return get(engine.model.architecture()); };
  };
  py::class_<Engine>(m, "Engine")
      .def(py::init(&load), py::arg("content"), py::arg("path"), py::arg("threads"),
           py::arg("isa") = "")
      .def("predict", &predict, py::arg("image"))
      .def("logits", &logits, py::arg("image"))
      .def("label", &label, py::arg("logits"))
      .def("profile", &profile, py::arg("image"))
      .def_property_readonly("meta", [](const Engine& engine) { return py::bytes(engine.meta); })
      .def_property_readonly("mean",
                             [](const Engine& engine) {
                               const auto& mean = engine.model.parameters().mean;
                               return std::vector<float>(mean.begin(), mean.end());
                             })
      .def_property_readonly("in_channels", of([](auto& arch) { return arch.in_channels; }))
      .def_property_readonly("classes", of([](auto& arch) { return arch.classes; }))
      .def_property_readonly("align_corners", of([](auto& arch) { return arch.align_corners; }))
      .def_property_readonly("threads", [](const Engine& engine) { return engine.model.threads(); })
      .def_property_readonly("isa",
                             [](const Engine& engine) { return engine.model.instruction_set(); });
}
