// Native code from bytes: shared objects, opened from memory, once in a process each.

#ifndef HOTSTART_LIBRARIES_H
#define HOTSTART_LIBRARIES_H

#include <string>

#include "container.h"

namespace hotstart {

// Opens a shared object, or finds it again by the SHA-256 of its bytes. Nothing is written to disk.
// It stays open: the linker knows a library by its path, which here has the number of a descriptor,
// and a number that came back for another library would give the first.
void* opened(const std::string& file, const Blob& blob);

// The address of a function; throws `corrupt` if there is none.
void* function_of(const std::string& file, void* library, const char* function);

}  // namespace hotstart

#endif
