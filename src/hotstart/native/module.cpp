// The end of every native program: its functions as objects of Python's. Python's C functions are
// declared here as ones that may be missing, so that a process without Python can open the library
// too.

struct PyObject;

#define WEAK __attribute__((weak))

extern "C" {
using Function = PyObject* (*)(PyObject*, PyObject* const*, intptr_t);
struct PyMethodDef {
  const char* name;
  Function function;
  int flags;
  const char* doc;
};
WEAK PyObject* PyCFunction_NewEx(PyMethodDef*, PyObject*, PyObject*);
WEAK PyObject* PyCapsule_New(void*, const char*, void (*)(PyObject*));
WEAK void* PyCapsule_GetPointer(PyObject*, const char*);
WEAK const char* PyCapsule_GetName(PyObject*);
WEAK void PyErr_SetString(PyObject*, const char*);
WEAK PyObject* PyErr_Occurred();
WEAK PyObject* PyImport_ImportModule(const char*);
WEAK PyObject* PyObject_GetAttrString(PyObject*, const char*);
WEAK PyObject* PyList_New(intptr_t);
WEAK intptr_t PyList_Size(PyObject*);
WEAK PyObject* PyList_GetItem(PyObject*, intptr_t);
WEAK int PyList_SetItem(PyObject*, intptr_t, PyObject*);
WEAK long long PyLong_AsLongLong(PyObject*);
WEAK void* PyLong_AsVoidPtr(PyObject*);
WEAK void Py_DecRef(PyObject*);
WEAK void* PyEval_SaveThread();
WEAK void PyEval_RestoreThread(void*);
}

namespace {

constexpr int kFastCall = 0x0080;
const char* const kBound = "hotstart.bound";

PyObject* refuse(const char* what, const char* by = "RuntimeError") {
  PyObject* builtins = PyImport_ImportModule("builtins");
  PyObject* kind = builtins == nullptr ? nullptr : PyObject_GetAttrString(builtins, by);
  if (kind != nullptr) PyErr_SetString(kind, what);
  if (builtins != nullptr) Py_DecRef(builtins);
  if (kind != nullptr) Py_DecRef(kind);
  return nullptr;
}

void forget(PyObject* capsule) {
  unbind(static_cast<hotstart_bound*>(PyCapsule_GetPointer(capsule, kBound)));
}

// open(addresses): tells where the kernels are, in the order of the table.
PyObject* open(PyObject*, PyObject* const* args, intptr_t count) {
  if (count != 1 || PyList_Size(args[0]) != table.kernels) return refuse("open takes all kernels");
  void* addresses[kernel_count + 1];
  for (int number = 0; number < table.kernels; ++number) {
    addresses[number] = PyLong_AsVoidPtr(PyList_GetItem(args[0], number));
    if (addresses[number] == nullptr) return refuse("a kernel of the program is not loaded");
  }
  table.open(addresses);
  return PyList_New(0);
}

// bind(body, held): a body with what it runs on: capsules of tensors' handles, which are its own
// then, and of other bodies, which have to live as long.
PyObject* bind(PyObject*, PyObject* const* args, intptr_t count) {
  if (count != 2) return refuse("bind takes a body and what it runs on");
  const long long body = PyLong_AsLongLong(args[0]);
  const intptr_t held = PyList_Size(args[1]);
  if (held < 0 || body < 0 || body >= table.bodies)
    return refuse("bind takes a body of the program");
  void* tensors[held + 1];
  const hotstart_bound* others[held + 1];
  for (intptr_t place = 0; place < held; ++place) {
    PyObject* each = PyList_GetItem(args[1], place);
    const char* name = PyCapsule_GetName(each);
    void* pointer = PyErr_Occurred() ? nullptr : PyCapsule_GetPointer(each, name);
    if (pointer == nullptr) return nullptr;
    tensors[place] = name == nullptr ? pointer : nullptr;
    others[place] = name == nullptr ? nullptr : static_cast<const hotstart_bound*>(pointer);
  }
  hotstart_bound* made =
      table.bind(static_cast<int>(body), static_cast<int>(held), tensors, others);
  if (made == nullptr) return refuse("there is no memory to bind a native program");
  PyObject* capsule = PyCapsule_New(made, kBound, forget);
  if (capsule == nullptr) table.unbind(made);
  return capsule;
}

// call(bound, size, ..., tensors): capsules of the results' handles. Those of the tensors are used
// up. Other threads of Python's run meanwhile.
PyObject* call(PyObject*, PyObject* const* args, intptr_t count) {
  if (count < 2) return refuse("call takes a body, sizes and a list of tensors");
  const hotstart_bound* body =
      static_cast<const hotstart_bound*>(PyCapsule_GetPointer(args[0], kBound));
  if (body == nullptr) return nullptr;
  const hotstart_shape& shape = table.shapes[table.body_of(body)];
  PyObject* given = args[count - 1];
  if (count != shape.sizes + 2 || PyList_Size(given) != shape.args)
    return refuse("call takes other sizes or tensors");
  int64_t sizes[shape.sizes + 1];
  for (int number = 0; number < shape.sizes; ++number) {
    sizes[number] = PyLong_AsLongLong(args[number + 1]);
    if (sizes[number] == -1 && PyErr_Occurred()) return nullptr;
  }
  void* tensors[shape.args + 1];
  for (int number = 0; number < shape.args; ++number) {
    tensors[number] = PyCapsule_GetPointer(PyList_GetItem(given, number), nullptr);
    if (tensors[number] == nullptr) return nullptr;
  }
  void* results[shape.results + 1];
  char failure[1000];
  void* thread = PyEval_SaveThread();
  const int failed = table.call(body, sizes, tensors, results, failure, sizeof failure);
  PyEval_RestoreThread(thread);
  if (failed) return refuse(failure, failed == 2 ? "IndexError" : "RuntimeError");
  PyObject* made = PyList_New(shape.results);
  for (int number = 0; made != nullptr && number < shape.results; ++number) {
    PyObject* capsule = PyCapsule_New(results[number], nullptr, nullptr);
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
