#include "torch.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "failure.h"
#include "file.h"
#include "json.h"
#include "words.h"

#ifndef HOTSTART_TORCH_FOLDER
#define HOTSTART_TORCH_FOLDER ""
#endif

namespace hotstart {

static const Dtype kDtypes[] = {
    {"float64", 8}, {"float32", 4},   {"float16", 2},       {"bfloat16", 2},
    {"int64", 8},   {"int32", 4},     {"int16", 2},         {"int8", 1},
    {"uint8", 1},   {"bool", 1},      {"uint16", 2},        {"uint32", 4},
    {"uint64", 8},  {"complex64", 8}, {"complex128", 16},   {"float8_e4m3fn", 1},
    {"float8_e5m2", 1}, {"float8_e4m3fnuz", 1}, {"float8_e5m2fnuz", 1}};
static const int kDtypeCount = sizeof kDtypes / sizeof *kDtypes;

const Dtype* dtype_of(int number) {
  return number >= 0 && number < kDtypeCount ? &kDtypes[number] : nullptr;
}

hotstart_dtype dtype_named(std::string_view name) {
  for (int number = 0; number < kDtypeCount; ++number)
    if (name == kDtypes[number].name) return static_cast<hotstart_dtype>(number);
  throw Malformed("expected a dtype, not " + cut(name, 80));
}

// --- where it is ------------------------------------------------------------------------------

static const char kLibrary[] = "libtorch_cpu.so";

// What stands between quotes after a name and `=` in the text of Python's `torch/version.py`.
static std::string assigned(const std::string& text, const std::string& name) {
  const size_t at = text.find("\n" + name + " = '");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 5, end = text.find('\'', begin);
  return end == std::string::npos ? "" : text.substr(begin, end - begin);
}

static std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// The folder of the library that the process has; empty if it has none.
static std::string loaded_folder() {
  void* library = dlopen(kLibrary, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return "";
  Dl_info info;
  void* symbol = dlsym(library, "aoti_torch_abi_version");
  const bool found = symbol != nullptr && dladdr(symbol, &info) != 0 && info.dli_fname != nullptr;
  const std::string file = found ? info.dli_fname : "";
  dlclose(library);
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "" : file.substr(0, slash);
}

TorchPlace find_torch() {
  TorchPlace place;
  place.folder = loaded_folder();
  if (place.folder.empty()) {
    const char* named = std::getenv("HOTSTART_TORCH");
    place.folder = named != nullptr && *named != 0 ? named : HOTSTART_TORCH_FOLDER;
  }
  const std::string around = place.folder + "/../";
  const std::string text = "\n" + text_of(around + "version.py");
  place.version = assigned(text, "__version__");
  place.build = assigned(text, "git_version");
  if (place.version.empty()) {  // what comes for C++ alone
    place.version = first_line(text_of(around + "build-version"));
    place.build = first_line(text_of(around + "build-hash"));
  }
  return place;
}

// --- the library ------------------------------------------------------------------------------

static Failure not_opened(const std::string& file, const char* reason) {
  return error(file, "torch's library for the CPU",
               std::string("that it does not open: ") + (reason == nullptr ? "" : reason),
               "Install torch, and name the folder of " + std::string(kLibrary) +
                   " in the environment variable HOTSTART_TORCH.");
}

Torch::Torch(const TorchPlace& place) {
  const std::string file = place.folder.empty() ? kLibrary : place.folder + "/" + kLibrary;
  library_ = dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL);  // and never closed
  if (library_ == nullptr) throw not_opened(file, dlerror());
  const auto find = [this](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(symbol(name));
  };
  find(create_, "aoti_torch_create_tensor_from_blob_v2");
  find(view_, "aoti_torch__reinterpret_tensor");
  find(empty_, "aoti_torch_empty_strided");
  find(copy_, "aoti_torch_copy_");
  find(again_, "aoti_torch_new_tensor_handle");
  find(forget_, "aoti_torch_delete_tensor_object");
  find(data_, "aoti_torch_get_data_ptr");
  find(dim_, "aoti_torch_get_dim");
  find(sizes_, "aoti_torch_get_sizes");
  find(strides_, "aoti_torch_get_strides");
  find(dtype_, "aoti_torch_get_dtype");
  find(dispatch_, "torch_call_dispatcher");
  find(version_, "aoti_torch_abi_version");
  const char* const what = "torch_exception_get_what_without_backtrace";
  what_ = reinterpret_cast<const char* (*)()>(dlsym(library_, what));
  const auto constant = [this](const std::string& name) {
    return reinterpret_cast<int32_t (*)()>(symbol(name.c_str()))();
  };
  cpu_ = constant("aoti_torch_device_type_cpu");
  strided_ = constant("aoti_torch_layout_strided");
  opaque_ = constant("aoti_torch_layout__mkldnn");
  for (const Dtype& dtype : kDtypes)
    codes_.push_back(constant(std::string("aoti_torch_dtype_") + dtype.name));
}

void* Torch::symbol(const char* name) const {
  void* found = dlsym(library_, name);
  if (found == nullptr)
    throw error(kLibrary, std::string("the function ") + name, "none",
                "Use the version of torch that the program was built with.");
  return found;
}

std::string Torch::release() const {
  const uint64_t version = version_();
  return std::to_string(version >> 56) + "." + std::to_string(version >> 48 & 255) + "." +
         std::to_string(version >> 40 & 255);
}

void Torch::check(int32_t status, const char* called) const {
  if (status == 0) return;
  const char* reason = what_ == nullptr ? nullptr : what_();
  if (reason == nullptr || *reason == 0)
    throw Failure(HOTSTART_FAILED, std::string(called) + " of torch failed");
  throw Failure(HOTSTART_FAILED, reason);
}

Handle Torch::over(void* data, const int64_t* shape, const int64_t* strides, int rank,
                   int dtype, const std::string* layout) const {
  static const std::string none;
  const std::string& bytes = layout == nullptr ? none : *layout;
  Handle made = nullptr;
  check(create_(data, rank, shape, strides, 0, codes_[dtype], cpu_, 0, &made,
                layout == nullptr ? strided_ : opaque_,
                layout == nullptr ? nullptr : reinterpret_cast<const uint8_t*>(bytes.data()),
                static_cast<int64_t>(bytes.size())),
        "create_tensor_from_blob");
  return made;
}

Handle Torch::viewed(Handle of, const std::vector<int64_t>& shape,
                     const std::vector<int64_t>& strides, int64_t further) const {
  Handle made = nullptr;
  const int64_t rank = static_cast<int64_t>(shape.size());
  check(view_(of, rank, shape.data(), strides.data(), further, &made), "reinterpret_tensor");
  return made;
}

Handle Torch::laid_out(Handle of, const int64_t* shape, const int64_t* strides, int rank,
                       int dtype) const {
  Handle made = nullptr;
  check(empty_(rank, shape, strides, codes_[dtype], cpu_, 0, &made), "empty_strided");
  Owned kept(this, made);
  copy(made, of);
  return kept.release();
}

void Torch::copy(Handle into, Handle from) const { check(copy_(into, from, 0), "copy_"); }

Handle Torch::again(Handle tensor) const {
  Handle made = nullptr;
  check(again_(tensor, &made), "new_tensor_handle");
  return made;
}

Handle Torch::resolved(Handle tensor) const {
  const int dtype = dtype_of_tensor(tensor);
  Handle made = again(tensor);
  if (dtype != HOTSTART_COMPLEX64 && dtype != HOTSTART_COMPLEX128) return made;
  uint64_t row[] = {reinterpret_cast<uint64_t>(made)};  // used up
  check(dispatch_("aten::resolve_conj", "", row, version_()), "resolve_conj");
  return reinterpret_cast<Handle>(row[0]);
}

void Torch::forget(Handle tensor) const { forget_(tensor); }

int Torch::dtype_of_tensor(Handle tensor) const {
  int32_t code = 0;
  check(dtype_(tensor, &code), "dtype");
  const auto found = std::find(codes_.begin(), codes_.end(), code);
  if (found != codes_.end()) return static_cast<int>(found - codes_.begin());
  throw Failure(HOTSTART_FAILED,
                "a result of a dtype that has no name here: number " + std::to_string(code));
}

hotstart_tensor Torch::described(Handle tensor) const {
  int64_t rank = 0, *shape = nullptr, *strides = nullptr;
  void* data = nullptr;
  check(data_(tensor, &data), "data_ptr");
  check(dim_(tensor, &rank), "dim");
  check(sizes_(tensor, &shape), "sizes");
  check(strides_(tensor, &strides), "strides");
  return {data, dtype_of_tensor(tensor), static_cast<int32_t>(rank), shape, strides};
}

// --- handles ----------------------------------------------------------------------------------

Owned& Owned::operator=(Owned&& other) noexcept {
  std::swap(torch_, other.torch_);
  std::swap(handle_, other.handle_);
  return *this;
}

Owned::~Owned() {
  if (handle_ != nullptr) torch_->forget(handle_);
}

Handle Owned::release() { return std::exchange(handle_, nullptr); }

}  // namespace hotstart
