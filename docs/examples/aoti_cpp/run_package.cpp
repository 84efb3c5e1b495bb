// Run a bundle's model_aoti.pt2 from C++: no Python, no tracing, no compiler.
//
//   run_package model_aoti.pt2 images.f32 64,3,224,224 output.f32
//
// images.f32 holds the input as raw float32 in C order, as numpy's tofile() writes it: the model's own pixels, prepared
// as preprocess.json says. output.f32 gets the first output in the same form, and its shape goes to standard output.
// Nothing here checks that the package was compiled for this machine, as the runner in Python does before it loads one.

#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

static std::vector<int64_t> parse_shape(const std::string& text) {
  std::vector<int64_t> shape;
  std::istringstream stream(text);
  for (std::string size; std::getline(stream, size, ',');) shape.push_back(std::stoll(size));
  return shape;
}

static at::Tensor read_tensor(const std::string& path, const std::vector<int64_t>& shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || file.tellg() != static_cast<std::streamoff>(tensor.nbytes()))
    throw std::runtime_error(path + ": expected " + std::to_string(tensor.nbytes()) + " bytes");
  file.seekg(0);
  file.read(static_cast<char*>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
  return tensor;
}

static void write_tensor(const std::string& path, const at::Tensor& tensor) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
  if (!file) throw std::runtime_error(path + ": cannot be written");
}

int main(int count, char** arguments) try {
  if (count != 5) {
    std::cerr << "usage: run_package PACKAGE INPUT SHAPE OUTPUT\n";
    return 2;
  }
  c10::InferenceMode inference;
  // One runner, on the current device; without its locks between threads, so that a CUDA graph could record the call.
  torch::inductor::AOTIModelPackageLoader package(arguments[1], "model", /*run_single_threaded=*/true);
  const at::Device device(package.get_metadata().at("AOTI_DEVICE_KEY"));

  const at::Tensor images = read_tensor(arguments[2], parse_shape(arguments[3])).to(device);
  const std::vector<at::Tensor> results = package.run({images});  // outputs, then matches, if it keeps them

  const at::Tensor output = results.front().to(at::kCPU, at::kFloat).contiguous();
  write_tensor(arguments[4], output);
  std::cout << output.sizes() << "\n";
} catch (const std::exception& error) {
  std::cerr << "run_package: " << error.what() << "\n";
  return 1;
}
