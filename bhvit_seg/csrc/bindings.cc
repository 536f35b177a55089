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
#include "random_tensors.h"
#include "self_test.h"
#include "tensor_file.h"

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

// What `make` returns, which it does without the interpreter lock.
template <typename Make>
auto made_without_lock(const Make& make) {
  decltype(make()) made;
  without_lock([&] { made = make(); });
  return made;
}

std::unique_ptr<TensorFile> open_file(const py::bytes& path) {
  return made_without_lock(
      [name = std::string(path)] { return std::make_unique<TensorFile>(name); });
}

// By name, the type (as in the file), shape and offset of each tensor.
py::dict tensors_of(const TensorFile& file) {
  py::dict tensors;
  for (const auto& [name, tensor] : file.tensors())
    tensors[py::str(name)] = py::make_tuple(static_cast<int>(tensor.type),
                                            py::tuple(py::cast(tensor.shape)), tensor.offset);
  return tensors;
}

std::unique_ptr<Model> load(const Tensors& tensors, int threads, const std::string& isa) {
  return made_without_lock(
      [&] { return std::make_unique<Model>(tensors, threads, choose_kernels(isa)); });
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

Array<uint8_t> predict(Model& model, const py::array& array) {
  const Image image = image_of(array, model.architecture().in_channels);
  Array<uint8_t> labels({image.height, image.width});
  uint8_t* const out = labels.mutable_data();
  without_lock([&] { model.predict(image, out); });
  return labels;
}

Array<float> logits(Model& model, const py::array& array) {
  const Architecture& arch = model.architecture();
  const Image image = image_of(array, arch.in_channels);
  Array<float> values({arch.classes, div_up(image.height, 4), div_up(image.width, 4)});
  float* const out = values.mutable_data();
  without_lock([&] { model.logits(image, out); });
  return values;
}

Array<uint8_t> label(Model& model, const Array<float>& logits) {
  if (logits.ndim() != 3 || logits.size() == 0 || logits.shape(0) > 256) {
    throw Error("logits are an array of at most 256 classes x height x width");
  }
  Model::check_size(4 * logits.shape(1), 4 * logits.shape(2));
  const auto height = static_cast<int>(logits.shape(1)), width = static_cast<int>(logits.shape(2));
  Array<uint8_t> labels({4 * height, 4 * width});
  uint8_t* const out = labels.mutable_data();
  without_lock([&, values = logits.data(), classes = static_cast<int>(logits.shape(0))] {
    model.label(values, classes, height, width, out);
  });
  return labels;
}

Profile profile(Model& model, const py::array& array) {
  const Image image = image_of(array, model.architecture().in_channels);
  return made_without_lock([&] { return model.profile(image); });
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
  return made_without_lock([&] {
    return std::make_pair(best([&] { return kernels.busy_count(1 << 20, words); }),
                          best([&] { return kernels.busy_multiply(1 << 20, floats); }));
  });
}

}  // namespace
}  // namespace bhvit

PYBIND11_MODULE(_engine, m) {
  using namespace bhvit;
  m.doc() = "Runs packed segmentors; use bhvit_seg.native.";
  m.attr("interface") = 2;  // INTERFACE of bhvit_seg/native/engine.py
  static PyObject* const error = py::exception<Error>(m, "Error", PyExc_ValueError).release().ptr();
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& e) {  // may name a path that is not UTF-8
      PyErr_SetObject(error,
                      py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(e.what())).ptr());
    }
  });
  m.def("instruction_sets", &instruction_sets, "Those this processor can run, best first.");
  m.def("known_instruction_sets", &known_instruction_sets, "Those of all processors.");
  m.def("limits", &limits, py::arg("isa") = "",
        "Binary and float products a second of one core, at best.");
  m.def(
      "self_test",
      [](const std::string& isa) {
        return made_without_lock([&] { return self_test(choose_kernels(isa)); });
      },
      py::arg("isa") = "", "What differs from the serial kernels, or nothing.");
  py::class_<TensorFile>(m, "File", py::buffer_protocol())
      .def(py::init(&open_file), py::arg("path"))
      .def_buffer([](const TensorFile& file) {
        return py::buffer_info(file.bytes().data(), static_cast<py::ssize_t>(file.bytes().size()));
      })
      .def_property_readonly("meta", [](const TensorFile& file) { return py::bytes(file.meta()); })
      .def_property_readonly("tensors", &tensors_of);
  const auto of = [](auto get) {
    return [get](const Model& model) { return get(model.architecture()); };
  };
  py::class_<Model>(m, "Engine")
      .def(py::init([](const TensorFile& file, int threads, const std::string& isa) {
             return load(file, threads, isa);
           }),
           py::arg("file"), py::arg("threads"), py::arg("isa") = "")
      .def_static(
          "random",
          [](const std::vector<int32_t>& architecture, int threads, const std::string& isa) {
            return load(RandomTensors(architecture), threads, isa);
          },
          py::arg("architecture"), py::arg("threads"), py::arg("isa") = "")
      .def("predict", &predict, py::arg("image"))
      .def("logits", &logits, py::arg("image"))
      .def("label", &label, py::arg("logits"))
      .def("profile", &profile, py::arg("image"))
      .def_property_readonly("mean",
                             [](const Model& model) {
                               const auto& mean = model.parameters().mean;
                               return std::vector<float>(mean.begin(), mean.end());
                             })
      .def_property_readonly("architecture", of([](auto& arch) { return arch.numbers; }))
      .def_property_readonly("pool_scales",
                             [](const Model& model) { return model.parameters().head.pool_scales; })
      .def_property_readonly("in_channels", of([](auto& arch) { return arch.in_channels; }))
      .def_property_readonly("classes", of([](auto& arch) { return arch.classes; }))
      .def_property_readonly("align_corners", of([](auto& arch) { return arch.align_corners; }))
      .def_property_readonly("threads", &Model::threads)
      .def_property_readonly("isa", &Model::instruction_set);
}
