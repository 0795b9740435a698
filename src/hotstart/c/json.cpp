#include "json.h"

#include "words.h"

namespace hotstart {

// --- values -----------------------------------------------------------------------------------

void Json::require(Kind kind, const char* what) const {
  if (kind_ != kind)
    throw Malformed("expected " + std::string(what) +
                    (name_.empty() ? "" : " as " + cut(name_, 80)));
}

bool Json::boolean() const {
  require(Kind::boolean, "true or false");
  return number_ != 0;
}

int64_t Json::integer() const {
  require(Kind::integer, "an integer");
  return number_;
}

int64_t Json::integer(int64_t least, int64_t most) const {
  if (integer() < least || number_ > most)
    throw Malformed("expected an integer from " + std::to_string(least) + " to " +
                    std::to_string(most) + ", not " + std::to_string(number_));
  return number_;
}

std::string_view Json::text() const {
  require(Kind::text, "a text");
  return text_;
}

const std::vector<Json>& Json::items() const {
  require(Kind::list, "a list");
  return inside_;
}

const std::vector<Json>& Json::values() const {
  require(Kind::object, "an object");
  return inside_;
}

const Json* Json::find(std::string_view name) const {
  for (const Json& each : values())
    if (each.name_ == name) return each.is_null() ? nullptr : &each;
  return nullptr;
}

const Json& Json::operator[](std::string_view name) const {
  for (const Json& each : values())
    if (each.name_ == name) return each;
  throw Malformed("expected the key " + cut(name, 80));
}

const Json& Json::at(size_t number) const {
  if (number >= items().size()) throw Malformed("expected a longer list");
  return inside_[number];
}

std::vector<int64_t> numbers_of(const Json& list) {
  std::vector<int64_t> found;
  for (const Json& each : list.items()) found.push_back(each.integer(0, INT64_MAX));
  return found;
}

// --- reading ----------------------------------------------------------------------------------

class JsonReader {
 public:
  JsonReader(std::string_view text, std::deque<std::string>& unescaped)
      : at_(text.data()), end_(text.data() + text.size()), unescaped_(unescaped) {}

  void document(Json& root) {
    value(root);
    skip_spaces();
    if (at_ != end_) throw Malformed("JSON is malformed: there is more after its end");
  }

 private:
  static constexpr int kDeepest = 200;

  void value(Json& into) {
    skip_spaces();
    if (at_ == end_) malformed();
    switch (*at_) {
      case '{': return inside(into, Json::Kind::object, '}');
      case '[': return inside(into, Json::Kind::list, ']');
      case '"': into.kind_ = Json::Kind::text; into.text_ = text(); return;
      case 't': into.kind_ = Json::Kind::boolean; into.number_ = 1; return word("true");
      case 'f': into.kind_ = Json::Kind::boolean; return word("false");
      case 'n': return word("null");
      default: return number(into);
    }
  }

  void inside(Json& into, Json::Kind kind, char end) {
    into.kind_ = kind;
    ++at_;
    if (++depth_ > kDeepest) throw Malformed("JSON is malformed: it is too deep");
    if (next_is(end)) return closed();
    do {
      into.inside_.emplace_back();
      Json& made = into.inside_.back();
      if (kind == Json::Kind::object) {
        skip_spaces();
        if (at_ == end_ || *at_ != '"') malformed();
        made.name_ = text();
        if (!next_is(':')) malformed();
      }
      value(made);
    } while (next_is(','));
    if (!next_is(end)) malformed();
    closed();
  }

  void closed() { --depth_; }

  static bool is_control(char letter) { return static_cast<unsigned char>(letter) < 32; }

  std::string_view text() {
    const char* begin = ++at_;
    while (at_ != end_ && *at_ != '"' && *at_ != '\\' && !is_control(*at_)) ++at_;
    if (at_ == end_) malformed();
    if (*at_ == '"') return std::string_view(begin, at_++ - begin);
    unescaped_.emplace_back(begin, at_ - begin);
    std::string& made = unescaped_.back();
    while (at_ != end_ && *at_ != '"') {
      if (is_control(*at_)) malformed();
      if (*at_ == '\\')
        escape(made);
      else
        made += *at_++;
    }
    if (at_ == end_) malformed();
    ++at_;
    return made;
  }

  void escape(std::string& into) {
    if (end_ - at_ < 2) malformed();
    static const char written[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char letter = at_[1];
    at_ += 2;
    if (letter == 'u') return utf8(code_point(), into);
    for (int n = 0; written[n] != 0; ++n)
      if (letter == written[n]) {
        into += meant[n];
        return;
      }
    malformed();
  }

  uint32_t code_point() {
    const uint32_t first = four_digits();
    if (first < 0xd800 || first > 0xdfff) return first;
    if (first > 0xdbff || end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') malformed();
    at_ += 2;
    const uint32_t second = four_digits();
    if (second < 0xdc00 || second > 0xdfff) malformed();
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
  }

  uint32_t four_digits() {
    if (end_ - at_ < 4) malformed();
    uint32_t found = 0;
    for (int n = 0; n < 4; ++n, ++at_) {
      const char c = *at_;
      if (c >= '0' && c <= '9')
        found = 16 * found + (c - '0');
      else if ((c | 32) >= 'a' && (c | 32) <= 'f')
        found = 16 * found + ((c | 32) - 'a' + 10);
      else
        malformed();
    }
    return found;
  }

  static void utf8(uint32_t point, std::string& into) {
    if (point < 0x80) {
      into += static_cast<char>(point);
      return;
    }
    const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    const uint32_t starts[] = {0, 0xc0, 0xe0, 0xf0};
    into += static_cast<char>(starts[more] | point >> 6 * more);
    for (int n = more - 1; n >= 0; --n) into += static_cast<char>(0x80 | ((point >> 6 * n) & 0x3f));
  }

  void number(Json& into) {
    const char* begin = at_;
    if (at_ != end_ && *at_ == '-') ++at_;
    digits();
    into.kind_ = Json::Kind::integer;
    if (at_ != end_ && *at_ == '.') fraction(into);
    if (at_ != end_ && (*at_ | 32) == 'e') exponent(into);
    into.text_ = std::string_view(begin, at_ - begin);
    if (into.kind_ == Json::Kind::integer) whole(into);
  }

  void fraction(Json& into) {
    ++at_;
    into.kind_ = Json::Kind::real;
    digits();
  }

  void exponent(Json& into) {
    ++at_;
    into.kind_ = Json::Kind::real;
    if (at_ != end_ && (*at_ == '+' || *at_ == '-')) ++at_;
    digits();
  }

  void digits() {
    const char* begin = at_;
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9') ++at_;
    if (at_ == begin) malformed();
  }

  // One that does not fit into 64 bits is no integer here.
  static void whole(Json& into) {
    const bool negative = into.text_[0] == '-';
    int64_t found = 0;
    for (char digit : into.text_.substr(negative))
      if (__builtin_mul_overflow(found, 10, &found) ||
          __builtin_sub_overflow(found, digit - '0', &found)) {  // below zero there is one more
        into.kind_ = Json::Kind::real;
        return;
      }
    if (!negative && found == INT64_MIN)
      into.kind_ = Json::Kind::real;
    else
      into.number_ = negative ? found : -found;
  }

  void word(std::string_view expected) {
    if (std::string_view(at_, end_ - at_).substr(0, expected.size()) != expected) malformed();
    at_ += expected.size();
  }

  bool next_is(char expected) {
    skip_spaces();
    if (at_ == end_ || *at_ != expected) return false;
    ++at_;
    return true;
  }

  void skip_spaces() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }

  [[noreturn]] void malformed() {
    throw Malformed(at_ == end_ ? "JSON is malformed: it ends early" : "JSON is malformed");
  }

  const char* at_;
  const char* end_;
  int depth_ = 0;
  std::deque<std::string>& unescaped_;
};

JsonDocument::JsonDocument(std::string_view text) {
  if (!is_utf8(text)) throw Malformed("JSON is malformed: it is not in UTF-8");
  JsonReader(text, unescaped_).document(root_);
}

}  // namespace hotstart
