// Native code from bytes: shared objects, opened from memory, once in a process each.

#ifndef HOTSTART_LIBRARIES_H
#define HOTSTART_LIBRARIES_H

#include <string>
#include <vector>

#include "container.h"
#include "interface.h"

namespace hotstart {

// Opens a shared object, or finds it again by the SHA-256 of its bytes. Nothing is written to disk.
// It stays open: the linker knows a library by its path, which here has the number of a descriptor,
// and a number that came back for another library would give the first: where somebody has closed
// descriptors, such numbers are passed over.
void* opened(const std::string& file, const Blob& blob);

// The address of a function; throws `corrupt` if there is none.
void* function_of(const std::string& file, void* library, const char* function);

// Opens a native program, or finds it again, and tells it where its kernels are. Programs that do the
// same with other kernels have the same bytes, and each gets a library of its own.
const hotstart_native& opened_program(const std::string& file, const Blob& blob,
                                      const std::vector<void*>& kernels);

}  // namespace hotstart

#endif
