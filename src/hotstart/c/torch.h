// libtorch_cpu, opened: tensors as handles.

#ifndef HOTSTART_TORCH_H
#define HOTSTART_TORCH_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hotstart.h"

namespace hotstart {

using Handle = void*;

// Where torch's library is, and which version it says it has.
struct TorchPlace {
  std::string folder;            // empty if the process has it already, and its place is unknown
  std::string version, build;    // empty if the folder does not say
};

TorchPlace find_torch();

class Torch {
 public:
  explicit Torch(const TorchPlace& place);

  // Major, minor and patch version of the library.
  std::string release() const;

  // Makes a tensor over memory that somebody keeps for as long. A layout is oneDNN's.
  Handle over(void* data, const int64_t* shape, const int64_t* strides, int rank, int dtype,
              const std::string* layout = nullptr) const;
  Handle viewed(Handle of, const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                int64_t further) const;
  Handle laid_out(Handle of, const int64_t* shape, const int64_t* strides, int rank,
                  int dtype) const;
  void copy(Handle into, Handle from) const;
  Handle again(Handle tensor) const;
  // The same numbers as they are in memory: operators such as `conj` leave it to readers to
  // conjugate complex ones.
  Handle resolved(Handle tensor) const;
  void forget(Handle tensor) const;
  hotstart_tensor described(Handle tensor) const;  // shape and strides are the tensor's own

 private:
  void* symbol(const char* name) const;
  void check(int32_t status, const char* called) const;
  int dtype_of_tensor(Handle tensor) const;

  void* library_;
  int32_t cpu_, strided_, opaque_;
  std::vector<int32_t> codes_;  // of each dtype

  int32_t (*create_)(void*, int64_t, const int64_t*, const int64_t*, int64_t, int32_t, int32_t,
                     int32_t, Handle*, int32_t, const uint8_t*, int64_t);
  int32_t (*view_)(Handle, int64_t, const int64_t*, const int64_t*, int64_t, Handle*);
  int32_t (*empty_)(int64_t, const int64_t*, const int64_t*, int32_t, int32_t, int32_t, Handle*);
  int32_t (*copy_)(Handle, Handle, int32_t);
  int32_t (*again_)(Handle, Handle*);
  int32_t (*forget_)(Handle);
  int32_t (*data_)(Handle, void**);
  int32_t (*dim_)(Handle, int64_t*);
  int32_t (*sizes_)(Handle, int64_t**);
  int32_t (*strides_)(Handle, int64_t**);
  int32_t (*dtype_)(Handle, int32_t*);
  int32_t (*dispatch_)(const char*, const char*, uint64_t*, uint64_t);
  uint64_t (*version_)();
  const char* (*what_)();  // null before torch 2.13
};

// A handle that is deleted with it.
class Owned {
 public:
  Owned() = default;
  Owned(const Torch* torch, Handle handle) : torch_(torch), handle_(handle) {}
  Owned(Owned&& other) noexcept : torch_(other.torch_), handle_(other.release()) {}
  Owned& operator=(Owned&& other) noexcept;
  ~Owned();
  Handle get() const { return handle_; }
  Handle release();

 private:
  const Torch* torch_ = nullptr;
  Handle handle_ = nullptr;
};

struct Dtype {
  const char* name;
  int32_t size;
};

// Null for what is none.
const Dtype* dtype_of(int number);
// Throws `Malformed` for a name of none.
hotstart_dtype dtype_named(std::string_view name);

}  // namespace hotstart

#endif
