/* Serve a program of hotstart from C: no Python runs, and none has to be installed but torch's
 * library for the CPU, libtorch_cpu.
 *
 *     hotstart_program* program;
 *     if (hotstart_open("model.hot", "model.weights", &program) != HOTSTART_OK)
 *       fprintf(stderr, "%s\n", hotstart_last_error());
 *
 * `model.hot` is what `program.save` wrote, `model.weights` what `program.save_weights` wrote.
 *
 * Every byte that is executed or used is checked first: the file's by SHA-256, the weights' as
 * `hotstart.load` does. Signatures are not checked here: `hotstart verify --trusted-key` does that.
 * Nothing is written to disk.
 *
 * Threads: a program may be called from any number of threads at once. `hotstart_close` must come
 * after the last of those calls has returned; results stay valid after it. What `hotstart_describe`
 * gives, and `hotstart_last_error`, are described below.
 *
 * Functions that can fail return a status. No exception and no signal is used to tell of a failure.
 */
#ifndef HOTSTART_H
#define HOTSTART_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HOTSTART_API __attribute__((visibility("default")))
#else
#define HOTSTART_API
#endif

/* The numbers of 1, 3 and 4 are those that the command `hotstart` exits with. */
typedef enum hotstart_status {
  HOTSTART_OK = 0,
  HOTSTART_ERROR = 1,        /* a file cannot be read, torch's library is not found, the program
                                takes Python */
  HOTSTART_CONTRACT = 2,     /* a call that the program was not built for, or a wrong argument of a
                                function of this header */
  HOTSTART_CORRUPT = 3,      /* a file is damaged, or none of hotstart's */
  HOTSTART_INCOMPATIBLE = 4, /* a file is for another machine, version of torch or program */
  HOTSTART_FAILED = 6,       /* an operator failed while a call ran */
  HOTSTART_MEMORY = 7        /* there is not enough memory */
} hotstart_status;

typedef enum hotstart_dtype {
  HOTSTART_FLOAT64 = 0,
  HOTSTART_FLOAT32 = 1,
  HOTSTART_FLOAT16 = 2,
  HOTSTART_BFLOAT16 = 3,
  HOTSTART_INT64 = 4,
  HOTSTART_INT32 = 5,
  HOTSTART_INT16 = 6,
  HOTSTART_INT8 = 7,
  HOTSTART_UINT8 = 8,
  HOTSTART_BOOL = 9, /* one byte, 0 or 1 */
  HOTSTART_UINT16 = 10,
  HOTSTART_UINT32 = 11,
  HOTSTART_UINT64 = 12,
  HOTSTART_COMPLEX64 = 13,
  HOTSTART_COMPLEX128 = 14,
  HOTSTART_FLOAT8_E4M3FN = 15,
  HOTSTART_FLOAT8_E5M2 = 16,
  HOTSTART_FLOAT8_E4M3FNUZ = 17,
  HOTSTART_FLOAT8_E5M2FNUZ = 18
} hotstart_dtype;

/* Numbers in memory. As an argument it is the caller's, who keeps memory, shape and strides until
 * the call has returned; the memory longer where a result lies in it, see `hotstart_results`. */
typedef struct hotstart_tensor {
  void* data;
  int32_t dtype;          /* a `hotstart_dtype` */
  int32_t rank;           /* how many dimensions there are */
  const int64_t* shape;   /* a size for each */
  const int64_t* strides; /* in elements; NULL: dense, the last dimension is the innermost */
} hotstart_tensor;

/* The sizes that a dimension may have. */
typedef struct hotstart_axis {
  const char* name;
  int64_t min, max;   /* the smallest and the largest */
  const char* served; /* all of them in words, such as `1..8 or 16` */
} hotstart_axis;

/* What an argument has to be. */
typedef struct hotstart_argument {
  const char* name; /* as Python has it: `input_ids`, `batch['mask']` */
  int32_t dtype;          /* a `hotstart_dtype` */
  int32_t rank;
  /* Of each dimension its size, and the number of its axis; -1 for none. Both are -1 for a size that
   * follows from axes, such as a multiple of one; errors of calls say what it has to be. */
  const int64_t* shape;
  const int32_t* axes;
  int32_t written;      /* 1 if calls write to its memory, else 0 */
} hotstart_argument;

/* One way to call a program. Constants of the example (numbers, flags, None) are no arguments here:
 * they are what they were when the program was built. Numbers among the results of Python that
 * depend on sizes only are no results here. */
typedef struct hotstart_call_info {
  const char* name; /* empty where the program has calls of one kind only */
  int32_t argument_count;
  const hotstart_argument* arguments;
  int32_t axis_count;
  const hotstart_axis* axes;
  int32_t result_count;
  const char* const* results; /* their names: `result`, `logits`, `[0]`, `states[1]` */
} hotstart_call_info;

/* The results of one call, in the order of their names. Their memory is theirs until
 * `hotstart_free`; that of a result which is an argument, or a view of one, is the argument's. */
typedef struct hotstart_results {
  int32_t count;
  const hotstart_tensor* tensors; /* strides are never NULL */
} hotstart_results;

typedef struct hotstart_program hotstart_program;

/* Open a program with prepared weights.
 *
 * libtorch_cpu.so is the one that the process has, else the one in the folder that the environment
 * variable HOTSTART_TORCH names, else the one in the folder that `hotstart c-library` found.
 *
 * `*program` is set to NULL after a failure. */
HOTSTART_API hotstart_status
hotstart_open(const char* file, const char* weights, hotstart_program** program);

/* Close a program; NULL is allowed. Its code stays in the process, to be found again. */
HOTSTART_API void hotstart_close(hotstart_program* program);

/* The processors that the code is for: `x86-64-v3`, say, or `native`: those with all that the
 * machine had that built it. Of a file with code for several, that is the best that this machine
 * runs. Empty if the file does not say, or for NULL. It lasts until the program is closed. */
HOTSTART_API const char* hotstart_target(const hotstart_program* program);

/* How many ways to call a program there are; they are numbered from 0 on. */
HOTSTART_API int32_t hotstart_call_count(const hotstart_program* program);

/* Describe a way to call a program; NULL if there is none of that number. What is returned is the
 * program's and lasts until it is closed. */
HOTSTART_API const hotstart_call_info*
hotstart_describe(const hotstart_program* program, int32_t call);

/* Call a program.
 *
 * call: which way, from 0 on.
 * arguments, count: a tensor for each argument, in order.
 * results: set to what has to be freed by `hotstart_free`; to NULL after a failure. */
HOTSTART_API hotstart_status hotstart_call(
    const hotstart_program* program, int32_t call, const hotstart_tensor* arguments, int32_t count,
    hotstart_results** results);

/* Free results; NULL is allowed. */
HOTSTART_API void hotstart_free(hotstart_results* results);

/* Why the last function that failed in this thread did. The text is never NULL, and lasts until the
 * next function of this header that fails in this thread. */
HOTSTART_API const char* hotstart_last_error(void);

/* The name of a dtype, such as `float32`, and the bytes of an element; NULL and 0 for others. */
HOTSTART_API const char* hotstart_dtype_name(int32_t dtype);
HOTSTART_API int32_t hotstart_dtype_size(int32_t dtype);

/* The version of hotstart that this library belongs to. */
HOTSTART_API const char* hotstart_version(void);

#ifdef __cplusplus
}
#endif

#endif
