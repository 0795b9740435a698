// JSON, read whole. Texts are places in what was read, or in the document where they had escapes.

#ifndef HOTSTART_JSON_H
#define HOTSTART_JSON_H

#include <cstdint>
#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace hotstart {

// What was read is no JSON, or does not say what it should.
class Malformed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Json {
 public:
  enum class Kind { null, boolean, integer, real, text, list, object };

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }

  // All of these throw `Malformed` where the value is of another kind.
  bool boolean() const;
  int64_t integer() const;
  int64_t integer(int64_t least, int64_t most) const;
  std::string_view text() const;
  std::string string() const { return std::string(text()); }
  const std::vector<Json>& items() const;      // of a list
  const std::vector<Json>& values() const;     // of an object
  std::string_view name() const { return name_; }  // of a value in an object
  const Json& operator[](std::string_view name) const;
  const Json& at(size_t number) const;
  const Json* find(std::string_view name) const;  // null if there is none, or if it is null

 private:
  friend class JsonReader;
  void require(Kind kind, const char* what) const;

  Kind kind_ = Kind::null;
  int64_t number_ = 0;
  std::string_view text_, name_;
  std::vector<Json> inside_;
};

// The numbers of a list, none below zero.
std::vector<int64_t> numbers_of(const Json& list);

// A text and what it says. It stays where it is, since values refer to it.
class JsonDocument {
 public:
  explicit JsonDocument(std::string_view text);
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;
  const Json& root() const { return root_; }

 private:
  std::deque<std::string> unescaped_;
  Json root_;
};

}  // namespace hotstart

#endif
