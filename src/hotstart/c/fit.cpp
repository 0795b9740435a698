#include "fit.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "words.h"

#ifndef HOTSTART_VERSION
#define HOTSTART_VERSION "0"
#endif

namespace hotstart {

using Texts = std::vector<std::string>;

// --- this process -----------------------------------------------------------------------------

// Flags for which a compiler may emit instructions on its own, as in Python's
// `hotstart.artifact.fingerprint`.
static bool starts_with(const std::string& text, const char* start) {
  return text.compare(0, std::char_traits<char>::length(start), start) == 0;
}

static bool is_family(const std::string& flag) {
  return starts_with(flag, "sse") || starts_with(flag, "avx") || starts_with(flag, "amx_");
}

static bool is_compiled_for(const std::string& flag) {
  static const Texts others = {
      "cmov",  "cx8",   "mmx",    "mmxext", "3dnow",     "3dnowext", "3dnowprefetch", "pni",
      "ssse3", "cx16",  "lahf_lm", "movbe", "popcnt",    "abm",      "bmi1",          "bmi2",
      "tbm",   "adx",   "f16c",   "fma",    "fma4",      "xop",      "apx",           "cmpccxadd",
      "rao_int", "aes", "vaes",   "pclmulqdq", "vpclmulqdq", "gfni", "sha_ni",        "sha512",
      "sm3",   "sm4",   "rdrand", "rdseed", "rdpid"};
  return is_family(flag) || std::find(others.begin(), others.end(), flag) != others.end();
}

Texts processor_instructions() {
  std::ifstream lines("/proc/cpuinfo");
  for (std::string line; std::getline(lines, line);) {
    const bool x86 = starts_with(line, "flags"), arm = starts_with(line, "Features");
    const size_t colon = line.find(':');
    if ((!x86 && !arm) || colon == std::string::npos) continue;
    std::istringstream words(line.substr(colon + 1));
    Texts found;
    for (std::string word; words >> word;)
      if (arm || is_compiled_for(word)) found.push_back(word);
    std::sort(found.begin(), found.end());
    return found;
  }
  return {};
}

Host host(const TorchPlace& place, const Texts& instructions) {
  Host here{place.version, place.build, "", "", instructions};
  utsname system;
  if (uname(&system) == 0) here.platform = std::string("linux-") + system.machine;
  char libc[128];
  const size_t size = confstr(_CS_GNU_LIBC_VERSION, libc, sizeof libc);
  if (size > 0 && size <= sizeof libc) here.libc = libc;
  return here;
}

// --- comparing --------------------------------------------------------------------------------

static std::string or_nothing(const std::string& text) { return text.empty() ? "nothing" : text; }

// A part of a fingerprint in one line.
static std::string written(const Json& value) {
  Texts parts;
  switch (value.kind()) {
    case Json::Kind::text: return value.string();
    case Json::Kind::boolean: return value.boolean() ? "True" : "False";
    case Json::Kind::integer: return std::to_string(value.integer());
    case Json::Kind::list:
      for (const Json& each : value.items()) parts.push_back(written(each));
      break;
    case Json::Kind::object:
      for (const Json& each : value.values())
        parts.push_back(std::string(each.name()) + " " + written(each));
      break;
    default: break;
  }
  return or_nothing(joined(parts, ", "));
}

// A release such as `glibc 2.36`: what stands before its number, and that without zeros at the end.
static std::pair<std::string, std::vector<long>> release_of(const std::string& text) {
  const size_t digit = text.find_first_of("0123456789");
  if (digit == std::string::npos) return {text, {}};
  std::vector<long> numbers;
  const char* at = text.c_str() + digit;
  while (*at >= '0' && *at <= '9') {
    char* end;
    numbers.push_back(std::strtol(at, &end, 10));
    at = *end == '.' ? end + 1 : end;
    if (*end != '.') break;
  }
  while (numbers.size() > 1 && numbers.back() == 0) numbers.pop_back();
  return {text.substr(0, digit), numbers};
}

static bool same_or_newer(const std::string& needed, const std::string& here) {
  const auto wanted = release_of(needed), found = release_of(here);
  return wanted.first == found.first && !wanted.second.empty() && found.second >= wanted.second;
}

static Texts texts_of(const Json& list) {
  Texts found;
  for (const Json& each : list.items()) found.push_back(each.string());
  std::sort(found.begin(), found.end());
  return found;
}

static Texts without(const Texts& one, const Texts& other) {
  Texts left;
  std::set_difference(one.begin(), one.end(), other.begin(), other.end(), std::back_inserter(left));
  return left;
}

// What this process has for a part that is a text.
static const std::string* text_here(std::string_view part, const Host& here) {
  static const std::string version = HOTSTART_VERSION;
  if (part == "hotstart") return &version;
  if (part == "torch") return &here.torch;
  if (part == "torch_build") return &here.torch_build;
  if (part == "platform") return &here.platform;
  return part == "libc" ? &here.libc : nullptr;
}

static bool is_compared(const Json& part) {
  for (const char* other : {"python", "bytecode", "target", "options", "graph", "sources"})
    if (part.name() == other) return false;
  const bool empty = part.kind() == Json::Kind::object && part.values().empty();
  return !part.is_null() && !empty;
}

std::vector<Difference> program_misfits(const Json& fingerprint, const Host& here) {
  std::vector<Difference> problems;
  for (const Json& part : fingerprint.values()) {
    const std::string name(part.name());
    if (!is_compared(part)) continue;
    if (name == "instructions") {
      const Texts missing = without(texts_of(part), here.instructions);
      if (!missing.empty())
        problems.push_back({name, "a CPU with " + joined(missing, ", "), "a CPU without"});
      continue;
    }
    const std::string* found = text_here(name, here);
    const std::string needed = written(part), text = found == nullptr ? "" : *found;
    const bool least = name == "hotstart" || name == "libc";
    if (needed == text || (least && same_or_newer(needed, text))) continue;
    problems.push_back({name, least ? needed + " or newer" : needed, or_nothing(text)});
  }
  return problems;
}

static std::string processor(const Texts& has, const Texts& lacks) {
  Texts parts;
  if (!has.empty()) parts.push_back("with " + joined(has, ", "));
  if (!lacks.empty()) parts.push_back("without " + joined(lacks, ", "));
  return "a CPU " + joined(parts, " and ");
}

// oneDNN chooses the order of a packed weight by the vector instructions it may use.
static Texts for_packing(const Texts& flags) {
  Texts known;
  for (const std::string& flag : flags)
    if (is_family(flag) || flag == "fma") known.push_back(flag);
  return known.empty() ? flags : known;
}

static std::string most_instructions() {
  for (const char* name : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != 0) return value;
  }
  return "";
}

std::vector<Difference> weights_misfits(const Json& fingerprint, const Host& here) {
  std::vector<Difference> problems;
  for (const Json& part : fingerprint.values()) {
    const std::string name(part.name());
    if (name == "instructions") {
      const Texts wanted = texts_of(part), found = for_packing(here.instructions);
      const Texts missing = without(wanted, found), more = without(found, wanted);
      if (!missing.empty() || !more.empty())
        problems.push_back({name, processor(missing, more), processor(more, missing)});
      continue;
    }
    const std::string* known = text_here(name, here);
    const bool most = name == "most instructions for oneDNN";
    const std::string found = most ? most_instructions() : known == nullptr ? "" : *known;
    const std::string wanted = part.is_null() ? "" : part.string();
    if (wanted != found) problems.push_back({name, or_nothing(wanted), or_nothing(found)});
  }
  return problems;
}

void require_release(const std::string& file, const Json& fingerprint, const Torch& torch) {
  const Json* part = fingerprint.find("torch");
  if (part == nullptr) return;
  const std::string needed = part->string(), found = torch.release();
  const bool same = starts_with(needed, found.c_str()) &&
                    (needed.size() == found.size() || !std::isdigit(needed[found.size()]));
  if (!same) throw incompatible(file, {{"torch", needed, found}});
}

}  // namespace hotstart
