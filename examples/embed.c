/* Embed token numbers in a process without Python.
 *
 *     python examples/embed_numpy.py            compiles MiniLM; or save any model that takes
 *                                               input_ids and attention_mask, int64 [batch, seq]:
 *                                               program.save("embed.hot")
 *                                               program.save_weights("embed.weights")
 *     hotstart c-library build                  writes build/hotstart.h and build/libhotstart.so
 *     cc examples/embed.c -Ibuild -Lbuild -Wl,-rpath,'$ORIGIN' -lhotstart -o build/embed
 *     echo "101 7592 2088 102" | build/embed embed.hot embed.weights
 *
 * Every line of the input is one sentence, and every line of the output its embedding.
 */
#include <stdio.h>
#include <stdlib.h>

#include "hotstart.h"

enum { MOST_TOKENS = 4096 };

static int failed(const char* what) {
  fprintf(stderr, "%s: %s\n", what, hotstart_last_error());
  return 1;
}

/* Reads the numbers of a line; -1 at the end of the input. */
static int read_tokens(int64_t* tokens) {
  static char line[16 * MOST_TOKENS];
  if (fgets(line, sizeof line, stdin) == NULL) return -1;
  int count = 0;
  char* at = line;
  for (char* end; count < MOST_TOKENS; at = end) {
    tokens[count] = strtoll(at, &end, 10);
    if (end == at) break;
    ++count;
  }
  return count;
}

static void print_row(const hotstart_tensor* result) {
  const float* numbers = result->data;
  for (int64_t place = 0; place < result->shape[1]; ++place)
    printf("%s%.9g", place == 0 ? "" : " ", numbers[place * result->strides[1]]);
  printf("\n");
  fflush(stdout);
}

static int embed(const hotstart_program* program, int64_t* tokens, int count) {
  static int64_t mask[MOST_TOKENS];
  for (int place = 0; place < count; ++place) mask[place] = 1;
  const int64_t shape[] = {1, count};
  const hotstart_tensor arguments[] = {
      {tokens, HOTSTART_INT64, 2, shape, NULL},
      {mask, HOTSTART_INT64, 2, shape, NULL},
  };
  hotstart_results* results;
  if (hotstart_call(program, 0, arguments, 2, &results) != HOTSTART_OK) return failed("a call");
  const hotstart_tensor* first = &results->tensors[0];
  const int fits = first->dtype == HOTSTART_FLOAT32 && first->rank == 2;
  if (fits) print_row(first);
  hotstart_free(results);
  if (!fits) fprintf(stderr, "the first result: expected float32 [batch, numbers]\n");
  return !fits;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s PROGRAM WEIGHTS < TOKENS\n", argv[0]);
    return 2;
  }
  hotstart_program* program;
  if (hotstart_open(argv[1], argv[2], &program) != HOTSTART_OK) return failed("a load");
  static int64_t tokens[MOST_TOKENS];
  int status = 0;
  for (int count; status == 0 && (count = read_tokens(tokens)) >= 0;)
    status = embed(program, tokens, count);
  hotstart_close(program);
  return status;
}
