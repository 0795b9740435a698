#include "wired.h"

#include <new>

#include "failure.h"

namespace hotstart {

namespace {

// Makes the tensors of a wiring, in order. Weights that were only packed are not there; they are
// named by what was made of them, and nothing is bound to them.
class Tensors {
 public:
  Tensors(const Container& container, const Json& wiring, const Weights& weights,
          const Torch& torch)
      : specs_(container.manifest()["requirements"]["weights"]),
        rows_(wiring["tensors"].items()),
        used_(rows_.size()),
        weights_(weights),
        torch_(torch),
        brought_(container) {
    find_used(wiring);
    for (size_t number = 0; number < rows_.size(); ++number) {
      numbers_.push_back(number_of(rows_[number]));
      made_.push_back(used_[number] ? tensor(number) : Owned());
    }
  }

  void release(Wired& into) {
    into.tensors = std::move(made_);
    into.memory = brought_.release();
  }

 private:
  int64_t last() const { return static_cast<int64_t>(rows_.size()) - 1; }
  void use(const Json& number) { used_[number.integer(0, last())] = true; }

  void find_used(const Json& wiring) {
    for (const Json& function : wiring["functions"].items())
      for (const Json& held : function.at(1).items())
        if (held.integer() >= 0) use(held);
    for (const Json& call : wiring["calls"].items())
      for (const Json& variant : call["variants"].items())
        for (const Json& result : variant["results"].items())
          if (result.at(1).text() == "bound") use(result.at(2));
    for (const Json& row : rows_)
      if (row["type"].text() == "view") use(row["of"]);
  }

  // The number of a tensor in the file of weights; -1 for one that is not there.
  int64_t number_of(const Json& row) const {
    const std::string_view type = row["type"].text();
    if (type == "weight") return weights_.number_of(specs_.at(slot_of(row))["name"].string());
    if (type != "made") return -1;
    std::vector<int64_t> taken;
    const int64_t before = static_cast<int64_t>(numbers_.size()) - 1;
    for (const Json& each : row["weights"].items())
      taken.push_back(numbers_[each.integer(0, before)]);
    const size_t result = static_cast<size_t>(row["number"].integer(0, INT32_MAX));
    return weights_.made(row["preparation"].string(), taken, result);
  }

  static size_t slot_of(const Json& row) {
    return static_cast<size_t>(row["slot"].integer(0, INT32_MAX));
  }

  Owned tensor(size_t number) {
    const Json& row = rows_[number];
    const std::string_view type = row["type"].text();
    if (type == "view") return view(row, static_cast<int64_t>(number));
    if (numbers_[number] >= 0) return weights_.tensor(torch_, numbers_[number]);
    if (type == "made") throw not_prepared(row);
    if (type != "weight") {
      const std::string name = brought_.constant(row["unit"].text(), row["name"].text());
      return name.empty() ? throw missing(row) : brought_.tensor(torch_, name);
    }
    const int64_t slot = row["slot"].integer();
    const std::string captured = brought_.captured(slot), left_out = brought_.left_out(slot);
    if (!captured.empty()) return brought_.tensor(torch_, captured);
    return left_out.empty() ? throw missing(row) : own(specs_.at(slot_of(row)), left_out);
  }

  // What no checkpoint has, in the layout that the table of weights says; files hold it as it was.
  Owned own(const Json& spec, const std::string& name) {
    const std::vector<int64_t> shape = numbers_of(spec["shape"]);
    const std::vector<int64_t> strides = numbers_of(spec["stride"]);
    if (shape.size() != strides.size()) throw Malformed("a shape with other strides");
    const Owned held = brought_.tensor(torch_, name);
    return Owned(&torch_, torch_.laid_out(held.get(), shape.data(), strides.data(),
                                          static_cast<int>(shape.size()),
                                          dtype_named(spec["dtype"].text())));
  }

  Owned view(const Json& row, int64_t number) const {
    const Handle of = made_[row["of"].integer(0, number - 1)].get();
    const std::vector<int64_t> shape = numbers_of(row["shape"]);
    const std::vector<int64_t> strides = numbers_of(row["stride"]);
    if (shape.size() != strides.size()) throw Malformed("a shape with other strides");
    return Owned(&torch_, torch_.viewed(of, shape, strides, row["further"].integer()));
  }

  Failure not_prepared(const Json& row) const {
    return error(weights_.file(), "everything that the program prepares of its weights",
                 "nothing that " + row["preparation"].string() +
                     " makes, as of weights that calls change",
                 "Serve it with hotstart.load, or build it with Options(pack_weights=False).");
  }

  Failure missing(const Json& row) const {
    const bool is_weight = row["type"].text() == "weight";
    const std::string name = is_weight ? specs_.at(slot_of(row))["name"].string()
                                       : row["name"].string();
    return error(weights_.file(), "the tensor " + name,
                 "it neither there nor in the program's file",
                 "Save both again, with a model that has all of its weights.");
  }

  const Json& specs_;
  const std::vector<Json>& rows_;
  std::vector<bool> used_;
  const Weights& weights_;
  const Torch& torch_;
  Brought brought_;
  std::vector<int64_t> numbers_;
  std::vector<Owned> made_;
};

}  // namespace

static Function bound(const Json& row, const Wired& wired, const Torch& torch,
                      const hotstart_native& native) {
  const int body = static_cast<int>(row.at(0).integer(0, native.bodies - 1));
  const int64_t functions = static_cast<int64_t>(wired.functions.size());
  const int64_t last = static_cast<int64_t>(wired.tensors.size()) - 1;
  std::vector<Owned> own;
  std::vector<void*> tensors;
  std::vector<const hotstart_bound*> others;
  for (const Json& held : row.at(1).items()) {
    const int64_t number = held.integer(-functions, last);
    own.emplace_back();
    if (number >= 0) own.back() = Owned(&torch, torch.again(wired.tensors[number].get()));
    tensors.push_back(own.back().get());
    others.push_back(number >= 0 ? nullptr : wired.functions[-1 - number].get());
  }
  const int count = static_cast<int>(tensors.size());
  Function made(native.bind(body, count, tensors.data(), others.data()), native.unbind);
  if (made == nullptr) throw std::bad_alloc();
  for (Owned& each : own) each.release();
  return made;
}

Wired bind_all(const Container& container, const Json& wiring, const Weights& weights,
               const Torch& torch, const hotstart_native& native) {
  Wired wired;
  Tensors(container, wiring, weights, torch).release(wired);
  for (const Json& row : wiring["functions"].items())
    wired.functions.push_back(bound(row, wired, torch, native));
  return wired;
}

}  // namespace hotstart
