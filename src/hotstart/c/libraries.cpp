#include "libraries.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "failure.h"
#include "words.h"

namespace hotstart {

// --- without Python ---------------------------------------------------------------------------

using Bytes = std::vector<uint8_t>;

template <typename T>
static bool read_at(const Bytes& bytes, uint64_t place, T& into) {
  if (place > bytes.size() || bytes.size() - place < sizeof(T)) return false;
  std::memcpy(&into, bytes.data() + place, sizeof(T));
  return true;
}

static bool is_pythons(const Bytes& bytes, uint64_t place) {
  const auto starts = [&](const char* text, size_t size) {
    return place < bytes.size() && bytes.size() - place > size &&
           std::memcmp(bytes.data() + place, text, size) == 0;
  };
  return starts("Py", 2) || starts("_Py", 3);
}

// Says of a symbol of Python's that is looked for elsewhere that it may be missing.
static void loosen_symbol(Bytes& bytes, uint64_t place, uint64_t names) {
  Elf64_Sym symbol;
  if (!read_at(bytes, place, symbol) || symbol.st_shndx != SHN_UNDEF) return;
  if (ELF64_ST_BIND(symbol.st_info) != STB_GLOBAL) return;
  if (names > bytes.size() || !is_pythons(bytes, names + symbol.st_name)) return;
  symbol.st_info = ELF64_ST_INFO(STB_WEAK, ELF64_ST_TYPE(symbol.st_info));
  std::memcpy(bytes.data() + place, &symbol, sizeof symbol);
}

// Kernels have functions for Python beside the ones that are called from here. Those mention names
// of Python's, which a process without Python does not have, and the linker refuses a library for
// that. So these names may be missing: they are found where there is a Python, and are null
// elsewhere. Nothing else changes, for this library or any other.
static void loosen(Bytes& bytes) {
  Elf64_Ehdr header;
  if (!read_at(bytes, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return;
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_shentsize != sizeof(Elf64_Shdr)) return;
  for (int number = 0; number < header.e_shnum; ++number) {
    Elf64_Shdr section, names;
    if (!read_at(bytes, header.e_shoff + number * sizeof section, section)) return;
    if (section.sh_type != SHT_DYNSYM || section.sh_entsize != sizeof(Elf64_Sym)) continue;
    if (!read_at(bytes, header.e_shoff + section.sh_link * sizeof names, names)) return;
    if (section.sh_offset > bytes.size() || section.sh_size > bytes.size()) return;
    for (uint64_t at = 0; at < section.sh_size; at += sizeof(Elf64_Sym))
      loosen_symbol(bytes, section.sh_offset + at, names.sh_offset);
  }
}

// --- from memory ------------------------------------------------------------------------------

static Failure no_memory(int number) {
  return error("memory", "a file in memory for native code", std::strerror(number),
               "Free memory or descriptors, or allow memfd_create.");
}

static int in_memory(const Bytes& bytes) {
  const int descriptor = memfd_create("hotstart", MFD_CLOEXEC);
  if (descriptor < 0) throw no_memory(errno);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = write(descriptor, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      const int number = errno;
      close(descriptor);
      throw no_memory(number);
    }
    done += static_cast<size_t>(count);
  }
  return descriptor;
}

static std::string path_of(int descriptor) {
  return "/proc/self/fd/" + std::to_string(descriptor);
}

// Whether the linker knows a library by the path of a descriptor, which somebody has closed then.
static bool has_come_back(int descriptor) {
  void* library = dlopen(path_of(descriptor).c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (library != nullptr) dlclose(library);
  return library != nullptr;
}

static int with_new_number(int descriptor) {
  while (has_come_back(descriptor)) {
    const int further = fcntl(descriptor, F_DUPFD_CLOEXEC, descriptor + 1), number = errno;
    close(descriptor);
    if (further < 0) throw no_memory(number);
    descriptor = further;
  }
  return descriptor;
}

static void* opened_anew(const std::string& file, const Blob& blob) {
  Bytes bytes(blob.data, blob.data + blob.size);
  loosen(bytes);
  const int descriptor = with_new_number(in_memory(bytes));
  void* library = dlopen(path_of(descriptor).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) return library;
  const char* reason = dlerror();
  const std::string text = reason == nullptr ? "" : reason;
  close(descriptor);
  throw error(file, "native code that opens in this process", text, "Build it again here.");
}

void* opened(const std::string& file, const Blob& blob) {
  static std::mutex lock;
  static std::map<std::string, void*> known;
  std::lock_guard<std::mutex> guard(lock);
  void*& library = known[blob.sha256];
  if (library == nullptr) library = opened_anew(file, blob);
  return library;
}

static const hotstart_native* program_of(const std::string& file, void* library) {
  using Table = const hotstart_native* (*)();
  const hotstart_native* program =
      reinterpret_cast<Table>(function_of(file, library, "hotstart_native_program"))();
  if (program->version != HOTSTART_NATIVE_VERSION)
    throw incompatible(file, {{"native interface", std::to_string(program->version),
                               std::to_string(HOTSTART_NATIVE_VERSION)}});
  return program;
}

const hotstart_native& opened_program(const std::string& file, const Blob& blob,
                                      const std::vector<void*>& kernels) {
  static std::mutex lock;
  static std::map<std::pair<std::string, std::vector<void*>>, const hotstart_native*> known;
  std::lock_guard<std::mutex> guard(lock);
  const hotstart_native*& program = known[{blob.sha256, kernels}];
  if (program != nullptr) return *program;
  const hotstart_native* made = program_of(file, opened_anew(file, blob));
  if (static_cast<int>(kernels.size()) != made->kernels)
    throw Malformed("another number of kernels");
  made->open(kernels.data());
  return *(program = made);
}

void* function_of(const std::string& file, void* library, const char* function) {
  void* found = dlsym(library, function);
  if (found == nullptr)
    throw corrupt(file, "native code", std::string("the function ") + function, "none");
  return found;
}

}  // namespace hotstart
