// What every native program begins with: tensors by handle, over the C functions of libtorch_cpu.
// No header of torch's or Python's is read, which would take longer than the rest to compile.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <new>
#include <typeinfo>
#include <utility>

using Handle = struct AtenTensorOpaque*;
using Status = int32_t;
using Numbers = std::initializer_list<int64_t>;

extern "C" {
Status aoti_torch_delete_tensor_object(Handle);
Status aoti_torch_new_tensor_handle(Handle, Handle*);
Status aoti_torch_get_data_ptr(Handle, void**);
Status aoti_torch_get_dim(Handle, int64_t*);
Status aoti_torch_get_sizes(Handle, int64_t**);
Status aoti_torch_get_strides(Handle, int64_t**);
Status aoti_torch_get_storage_offset(Handle, int64_t*);
Status aoti_torch_get_dtype(Handle, int32_t*);
Status aoti_torch_copy_(Handle, Handle, int32_t);
Status aoti_torch_empty_strided(
    int64_t, const int64_t*, const int64_t*, int32_t, int32_t, int32_t, Handle*);
Status aoti_torch__reinterpret_tensor(
    Handle, int64_t, const int64_t*, const int64_t*, int64_t, Handle*);
int32_t aoti_torch_device_type_cpu();
Status torch_new_list_reserve_size(size_t, uint64_t*);
Status torch_list_push_back(uint64_t, uint64_t);
Status torch_call_dispatcher(const char*, const char*, uint64_t*, uint64_t);
uint64_t aoti_torch_abi_version();
__attribute__((weak)) Status torch_new_stable_ivalue(uint64_t**);
__attribute__((weak)) const char* torch_exception_get_what_without_backtrace();
}

namespace {

struct Failure : std::exception {
  char text[1000];
  const char* what() const noexcept override { return text; }
};

// Whatever happens rarely stays out of line, so that bodies are small.
#define RARE __attribute__((noinline, cold))
#define SHARED __attribute__((noinline))

[[noreturn]] RARE void fail(const char* format, const char* about, long long number = 0) {
  Failure failure;
  snprintf(failure.text, sizeof failure.text, format, about, number);
  throw failure;
}

[[noreturn]] RARE void failed(const char* called) {
  const char* what = nullptr;
  if (torch_exception_get_what_without_backtrace != nullptr)
    what = torch_exception_get_what_without_backtrace();
  if (what == nullptr || *what == 0) fail("%s failed", called);
  fail("%s", what);
}

inline void check(Status status, const char* called) {
  if (__builtin_expect(status != 0, 0)) failed(called);
}

// A tensor, or a loan of one that somebody else keeps for as long.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Handle handle, bool own) : handle_(handle), own_(own) {}
  Tensor(Tensor&& other) noexcept : handle_(other.handle_), own_(other.own_) {
    other.handle_ = nullptr;
  }
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(own_, other.own_);
    return *this;
  }
  ~Tensor() { reset(); }

  SHARED void reset() {
    if (own_ && handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
    handle_ = nullptr;
  }
  Handle get() const { return handle_; }
  // Where a function of torch's puts its result.
  Handle* result() {
    reset();
    own_ = true;
    return &handle_;
  }
  SHARED Tensor share() const {
    Tensor made;
    check(aoti_torch_new_tensor_handle(handle_, made.result()), "new_tensor_handle");
    return made;
  }
  // The tensor itself, or a further handle of one that is only lent.
  Tensor owned() { return own_ ? std::move(*this) : share(); }
  Handle release() {
    Handle handle = handle_;
    handle_ = nullptr;
    return handle;
  }

 private:
  Handle handle_ = nullptr;
  bool own_ = false;
};

struct Bound;
using Body = void (*)(const Bound&, const int64_t* sizes, Tensor* args, Tensor* results);

using Shape = hotstart_shape;

// A body with what it was bound to: tensors, and other bodies, in one row of places.
struct Bound {
  Body body;
  Shape shape;
  int number;
  Tensor* tensors;
  const Bound** others;

  Handle tensor(int place) const { return tensors[place].get(); }
  void run(const int64_t* sizes, Tensor* args, Tensor* results) const {
    body(*this, sizes, args, results);
  }
};

SHARED Tensor empty(Numbers sizes, Numbers strides, int32_t dtype) {
  Tensor made;
  check(
      aoti_torch_empty_strided(
          static_cast<int64_t>(sizes.size()), sizes.begin(), strides.begin(), dtype,
          aoti_torch_device_type_cpu(), 0, made.result()),
      "empty_strided");
  return made;
}

SHARED Tensor viewed(Handle of, Numbers sizes, Numbers strides, int64_t further) {
  Tensor made;
  check(
      aoti_torch__reinterpret_tensor(
          of, static_cast<int64_t>(sizes.size()), sizes.begin(), strides.begin(), further,
          made.result()),
      "reinterpret_tensor");
  return made;
}

SHARED void* data(Handle tensor) {
  void* pointer;
  check(aoti_torch_get_data_ptr(tensor, &pointer), "data_ptr");
  return pointer;
}

SHARED int64_t offset(Handle tensor) {
  int64_t found;
  check(aoti_torch_get_storage_offset(tensor, &found), "storage_offset");
  return found;
}

SHARED int64_t floor_divided(int64_t number, int64_t by) {
  if (by == 0) fail("%s", "integer division or modulo by zero");
  const int64_t quotient = number / by;
  return quotient - ((number % by != 0) && ((number < 0) != (by < 0)));
}

SHARED int64_t modulo(int64_t number, int64_t by) {
  return number - floor_divided(number, by) * by;
}

inline int64_t smaller(int64_t one, int64_t other) { return one < other ? one : other; }
inline int64_t larger(int64_t one, int64_t other) { return one > other ? one : other; }

struct Layout {
  int64_t dims;
  int64_t* sizes;
  int64_t* strides;
};

SHARED Layout layout(Handle tensor) {
  Layout found;
  check(aoti_torch_get_dim(tensor, &found.dims), "dim");
  check(aoti_torch_get_sizes(tensor, &found.sizes), "sizes");
  check(aoti_torch_get_strides(tensor, &found.strides), "strides");
  return found;
}

// What Inductor asserts of the results of operators. Strides count where there is a choice.
SHARED void require_layout(Handle tensor, Numbers sizes, Numbers strides, const char* made_by) {
  const Layout found = layout(tensor);
  if (found.dims != static_cast<int64_t>(sizes.size()))
    fail("expected another number of dimensions from %s, found %lld", made_by, found.dims);
  bool empty = false;
  for (int64_t dim = 0; dim < found.dims; ++dim) {
    empty |= found.sizes[dim] == 0;
    if (found.sizes[dim] != sizes.begin()[dim])
      fail("expected another size of a dimension from %s, found %lld", made_by, found.sizes[dim]);
  }
  for (int64_t dim = 0; !empty && dim < found.dims; ++dim)
    if (found.sizes[dim] > 1 && found.strides[dim] != strides.begin()[dim])
      fail("expected other strides from %s, found %lld", made_by, found.strides[dim]);
}

SHARED void require_dtype(Handle tensor, int32_t dtype, const char* made_by) {
  int32_t found;
  check(aoti_torch_get_dtype(tensor, &found), "dtype");
  if (found != dtype) fail("expected another dtype from %s, found number %lld", made_by, found);
}

SHARED void require_aligned(Handle tensor, int bytes, const char* made_by) {
  if (reinterpret_cast<uintptr_t>(data(tensor)) % bytes != 0)
    fail("expected memory from %s at a multiple of %lld bytes", made_by, bytes);
}

// Gives a tensor these strides: a view where they fit, else a copy.
SHARED void fit(Tensor& tensor, Numbers strides) {
  const Layout found = layout(tensor.get());
  bool same = true, fits = true;
  int64_t count = 1;
  for (int64_t dim = 0; dim < found.dims; ++dim) {
    const bool equal = found.strides[dim] == strides.begin()[dim];
    same &= equal;
    fits &= equal || found.sizes[dim] == 1;
    count *= found.sizes[dim];
  }
  if (same) return;
  Tensor made;
  if (fits || count == 0) {
    check(
        aoti_torch__reinterpret_tensor(
            tensor.get(), found.dims, found.sizes, strides.begin(), 0, made.result()),
        "reinterpret_tensor");
  } else {
    int32_t dtype;
    check(aoti_torch_get_dtype(tensor.get(), &dtype), "dtype");
    check(
        aoti_torch_empty_strided(
            found.dims, found.sizes, strides.begin(), dtype, aoti_torch_device_type_cpu(), 0,
            made.result()),
        "empty_strided");
    check(aoti_torch_copy_(made.get(), tensor.get(), 0), "copy_");
  }
  tensor = std::move(made);
}

// What torch's dispatcher takes in a row of numbers. It owns the tensors, lists and boxes there.
SHARED uint64_t shared(Handle tensor) {
  Handle made;
  check(aoti_torch_new_tensor_handle(tensor, &made), "new_tensor_handle");
  return reinterpret_cast<uint64_t>(made);
}

SHARED uint64_t boxed(uint64_t word) {
  uint64_t* box;
  if (torch_new_stable_ivalue == nullptr)
    box = new uint64_t;
  else
    check(torch_new_stable_ivalue(&box), "new_stable_ivalue");
  *box = word;
  return reinterpret_cast<uint64_t>(box);
}

inline uint64_t bits(double number) {
  uint64_t word;
  std::memcpy(&word, &number, sizeof word);
  return word;
}

SHARED uint64_t listed(std::initializer_list<uint64_t> words) {
  uint64_t list;
  check(torch_new_list_reserve_size(words.size(), &list), "new_list");
  for (uint64_t word : words) check(torch_list_push_back(list, word), "list_push_back");
  return list;
}

// A view as Python makes it, which autograd knows of: it has the version of what it shows, and in
// inference mode it is no inference tensor unless that is one.
SHARED Tensor strided(Handle of, Numbers sizes, Numbers strides, int64_t offset) {
  const auto row_of = [](Numbers numbers) {
    uint64_t list;
    check(torch_new_list_reserve_size(numbers.size(), &list), "new_list");
    for (int64_t number : numbers)
      check(torch_list_push_back(list, static_cast<uint64_t>(number)), "list_push_back");
    return list;
  };
  uint64_t row[4] = {shared(of)};
  const uint64_t version = aoti_torch_abi_version();
  check(torch_call_dispatcher("aten::detach", "", row, version), "detach");
  row[1] = row_of(sizes);
  row[2] = row_of(strides);
  row[3] = boxed(static_cast<uint64_t>(offset));
  check(torch_call_dispatcher("aten::as_strided", "", row, version), "as_strided");
  return Tensor(reinterpret_cast<Handle>(row[0]), true);
}

}  // namespace
