// What every native program offers: a table of C functions, which `hotstart_native_program` gives.
// Its glue for Python and the runtime in C go through it. Tensors are handles of libtorch_cpu's.

#ifndef HOTSTART_NATIVE_INTERFACE_H
#define HOTSTART_NATIVE_INTERFACE_H

#include <stddef.h>
#include <stdint.h>

// Goes up when the table or the meaning of something in it changes.
enum { HOTSTART_NATIVE_VERSION = 1 };

// A body with what it runs on.
typedef struct hotstart_bound hotstart_bound;

// How many sizes and tensors a body takes, and how many tensors it gives.
typedef struct hotstart_shape {
  int sizes, args, results;
} hotstart_shape;

typedef struct hotstart_native {
  int version;
  int kernels, bodies, variants;
  const hotstart_shape* shapes;  // of each body

  // Tells where the kernels are. Comes before the first call.
  void (*open)(void* const* kernels);

  // Whether the condition of a variant holds for the sizes of axes that lie in its intervals.
  int (*serves)(int variant, const int64_t* sizes);

  // Binds a body to a row of places. In each is a tensor, which the body owns then, or another
  // bound body, which has to live as long. NULL, with nothing taken, if memory has run out.
  hotstart_bound* (*bind)(
      int body, int held, void* const* tensors, const hotstart_bound* const* others);
  void (*unbind)(hotstart_bound* bound);

  // The number of a bound body.
  int (*body_of)(const hotstart_bound* bound);

  // Runs a bound body. The tensors are used up; the results are the caller's, each to be deleted.
  // Not 0 after a failure, and 2 if an index is beyond its dimension: there are no results then, and
  // a text that says why.
  int (*call)(
      const hotstart_bound* bound, const int64_t* sizes, void* const* tensors, void** results,
      char* failure, size_t room);
} hotstart_native;

#ifdef __cplusplus
extern "C"
#endif
    __attribute__((visibility("default"))) const hotstart_native* hotstart_native_program(void);

#endif
