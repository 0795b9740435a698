// The table of C functions of a native program. No exception leaves it.

namespace {

const Bound* bound_of(const hotstart_bound* bound) { return reinterpret_cast<const Bound*>(bound); }

void open_kernels(void* const* addresses) {
  for (int number = 0; number < kernel_count; ++number) kernels[number] = addresses[number];
}

int serves(int variant, const int64_t* sizes) {
  if (variant < 0 || variant >= variant_count) return 0;
  try {
    return conditions[variant] == nullptr || conditions[variant](sizes);
  } catch (...) {  // a division by zero
    return 0;
  }
}

void unbind(hotstart_bound* bound) {
  Bound* made = reinterpret_cast<Bound*>(bound);
  delete[] made->tensors;
  delete[] made->others;
  delete made;
}

hotstart_bound* bind_body(
    int body, int held, void* const* tensors, const hotstart_bound* const* others) {
  if (body < 0 || body >= body_count || held < 0) return nullptr;
  Bound* made = new (std::nothrow) Bound{bodies[body], shapes[body], body, nullptr, nullptr};
  if (made == nullptr) return nullptr;
  made->tensors = new (std::nothrow) Tensor[held];
  made->others = new (std::nothrow) const Bound*[held]();
  hotstart_bound* bound = reinterpret_cast<hotstart_bound*>(made);
  if (made->tensors == nullptr || made->others == nullptr) {
    unbind(bound);
    return nullptr;
  }
  for (int place = 0; place < held; ++place) {
    made->tensors[place] = Tensor(static_cast<Handle>(tensors[place]), true);
    made->others[place] = bound_of(others[place]);
  }
  return bound;
}

// By name, since the header that has the class takes the compiler half a second.
bool is_out_of_range(const std::exception& error) {
  return strcmp(typeid(error).name(), "St12out_of_range") == 0;
}

int body_of(const hotstart_bound* bound) { return bound_of(bound)->number; }

int call_bound(
    const hotstart_bound* bound, const int64_t* sizes, void* const* tensors, void** results,
    char* failure, size_t room) {
  const Shape& shape = bound_of(bound)->shape;
  Tensor given[shape.args + 1], made[shape.results + 1];
  for (int number = 0; number < shape.args; ++number)
    given[number] = Tensor(static_cast<Handle>(tensors[number]), true);
  const char* const unknown = "a native program failed";
  try {
    bound_of(bound)->run(sizes, given, made);
    for (int number = 0; number < shape.results; ++number) made[number] = made[number].owned();
  } catch (const std::exception& error) {
    snprintf(failure, room, "%s", *error.what() != 0 ? error.what() : unknown);
    return is_out_of_range(error) ? 2 : 1;
  } catch (...) {
    snprintf(failure, room, "%s", unknown);
    return 1;
  }
  for (int number = 0; number < shape.results; ++number) results[number] = made[number].release();
  return 0;
}

const hotstart_native table = {
    HOTSTART_NATIVE_VERSION, kernel_count, body_count, variant_count, shapes,
    open_kernels, serves, bind_body, unbind, body_of, call_bound};

}  // namespace

extern "C" __attribute__((visibility("default"))) const hotstart_native* hotstart_native_program() {
  return &table;
}
