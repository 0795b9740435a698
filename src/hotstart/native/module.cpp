// The end of every native program: its functions as objects of Python's. Python's C functions are
// declared here, and looked for when they are called, so that a process without Python can open
// the library too.

struct PyObject;

extern "C" {
using Function = PyObject* (*)(PyObject*, PyObject* const*, intptr_t);
struct PyMethodDef {
  const char* name;
  Function function;
  int flags;
  const char* doc;
};
PyObject* PyCFunction_NewEx(PyMethodDef*, PyObject*, PyObject*);
PyObject* PyCapsule_New(void*, const char*, void (*)(PyObject*));
void* PyCapsule_GetPointer(PyObject*, const char*);
const char* PyCapsule_GetName(PyObject*);
void PyErr_SetString(PyObject*, const char*);
PyObject* PyErr_Occurred();
PyObject* PyImport_ImportModule(const char*);
PyObject* PyObject_GetAttrString(PyObject*, const char*);
PyObject* PyList_New(intptr_t);
intptr_t PyList_Size(PyObject*);
PyObject* PyList_GetItem(PyObject*, intptr_t);
int PyList_SetItem(PyObject*, intptr_t, PyObject*);
long long PyLong_AsLongLong(PyObject*);
void* PyLong_AsVoidPtr(PyObject*);
void Py_DecRef(PyObject*);
void* PyEval_SaveThread();
void PyEval_RestoreThread(void*);
}

namespace {

constexpr int kFastCall = 0x0080;
const char* const kBound = "hotstart.bound";

PyObject* refuse(const char* what) {
  PyObject* builtins = PyImport_ImportModule("builtins");
  PyObject* kind = builtins == nullptr ? nullptr : PyObject_GetAttrString(builtins, "RuntimeError");
  if (kind != nullptr) PyErr_SetString(kind, what);
  if (builtins != nullptr) Py_DecRef(builtins);
  if (kind != nullptr) Py_DecRef(kind);
  return nullptr;
}

void unbind(PyObject* capsule) {
  Bound* made = static_cast<Bound*>(PyCapsule_GetPointer(capsule, kBound));
  delete[] made->tensors;
  delete[] made->others;
  delete made;
}

// open(addresses): tells where the kernels are, in the order of the table.
PyObject* open(PyObject*, PyObject* const* args, intptr_t count) {
  if (count != 1 || PyList_Size(args[0]) != kernel_count) return refuse("open takes all kernels");
  for (int number = 0; number < kernel_count; ++number) {
    kernels[number] = PyLong_AsVoidPtr(PyList_GetItem(args[0], number));
    if (kernels[number] == nullptr) return refuse("a kernel of the program is not loaded");
  }
  return PyList_New(0);
}

// bind(body, held): a body with what it runs on: capsules of tensors' handles, which are its own
// then, and of other bodies, which have to live as long.
PyObject* bind(PyObject*, PyObject* const* args, intptr_t count) {
  if (count != 2) return refuse("bind takes a body and what it runs on");
  const long long body = PyLong_AsLongLong(args[0]);
  const intptr_t held = PyList_Size(args[1]);
  if (held < 0 || body < 0 || body >= body_count) return refuse("bind takes a body of the program");
  Bound* made = new Bound{bodies[body], shapes[body], new Tensor[held], new const Bound*[held]()};
  PyObject* capsule = PyCapsule_New(made, kBound, unbind);
  for (intptr_t place = 0; place < held; ++place) {
    PyObject* each = PyList_GetItem(args[1], place);
    const char* name = PyCapsule_GetName(each);
    void* pointer = PyErr_Occurred() ? nullptr : PyCapsule_GetPointer(each, name);
    if (pointer == nullptr) {
      Py_DecRef(capsule);
      return nullptr;
    }
    if (name == nullptr)
      made->tensors[place] = Tensor(static_cast<Handle>(pointer), true);
    else
      made->others[place] = static_cast<const Bound*>(pointer);
  }
  return capsule;
}

// call(bound, size, ..., tensors): capsules of the results' handles. Those of the tensors are used
// up. Other threads of Python's run meanwhile.
PyObject* call(PyObject*, PyObject* const* args, intptr_t count) {
  if (count < 2) return refuse("call takes a body, sizes and a list of tensors");
  const Bound* body = static_cast<const Bound*>(PyCapsule_GetPointer(args[0], kBound));
  if (body == nullptr) return nullptr;
  const Shape& shape = body->shape;
  PyObject* given = args[count - 1];
  if (count != shape.sizes + 2 || PyList_Size(given) != shape.args)
    return refuse("call takes other sizes or tensors");
  int64_t sizes[shape.sizes + 1];
  for (int number = 0; number < shape.sizes; ++number) {
    sizes[number] = PyLong_AsLongLong(args[number + 1]);
    if (sizes[number] == -1 && PyErr_Occurred()) return nullptr;
  }
  Tensor tensors[shape.args + 1];
  for (int number = 0; number < shape.args; ++number) {
    void* handle = PyCapsule_GetPointer(PyList_GetItem(given, number), nullptr);
    if (handle == nullptr) return nullptr;
    tensors[number] = Tensor(static_cast<Handle>(handle), true);
  }
  Tensor results[shape.results + 1];
  Failure failure;
  failure.text[0] = 0;
  void* thread = PyEval_SaveThread();
  try {
    body->run(sizes, tensors, results);
  } catch (const std::exception& error) {
    const char* what = *error.what() != 0 ? error.what() : "a native program failed";
    snprintf(failure.text, sizeof failure.text, "%s", what);
  } catch (...) {
    snprintf(failure.text, sizeof failure.text, "a native program failed");
  }
  PyEval_RestoreThread(thread);
  if (failure.text[0] != 0) return refuse(failure.text);
  PyObject* made = PyList_New(shape.results);
  for (int number = 0; made != nullptr && number < shape.results; ++number) {
    PyObject* capsule = PyCapsule_New(results[number].release(), nullptr, nullptr);
    if (capsule == nullptr) {
      Py_DecRef(made);
      return nullptr;
    }
    PyList_SetItem(made, number, capsule);
  }
  return made;
}

PyMethodDef functions[] = {
    {"open", open, kFastCall, nullptr},
    {"bind", bind, kFastCall, nullptr},
    {"call", call, kFastCall, nullptr}};

}  // namespace

// The functions open, bind and call, as a list.
extern "C" __attribute__((visibility("default"))) PyObject* hotstart_functions() {
  PyObject* made = PyList_New(3);
  for (int number = 0; made != nullptr && number < 3; ++number) {
    PyObject* function = PyCFunction_NewEx(&functions[number], nullptr, nullptr);
    if (function == nullptr) {
      Py_DecRef(made);
      return nullptr;
    }
    PyList_SetItem(made, number, function);
  }
  return made;
}
