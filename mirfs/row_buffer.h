// Rows that were put or deleted, in key order, above others that say what was before. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace mirage {

class RowBuffer {
 public:
  using Row = std::optional<std::string>;  // none: deleted
  using Rows = std::map<std::string, Row, std::less<>>;

  void Put(std::string_view key, std::string_view value) { Set(key, Row(value)); }
  void Delete(std::string_view key) { Set(key, std::nullopt); }
  // Of a row below which there is nothing that a deletion would have to cover.
  void Forget(std::string_view key) {
    const auto found = rows_.find(key);
    if (found == rows_.end()) return;
    bytes_ -= BytesOf(*found);
    rows_.erase(found);
  }
  // Null: this table says nothing of it.
  const Row* Find(std::string_view key) const {
    const auto found = rows_.find(key);
    return found == rows_.end() ? nullptr : &found->second;
  }
  const Rows& rows() const { return rows_; }
  size_t bytes() const { return bytes_; }  // of memory, about

 private:
  static constexpr size_t kRowBytes = 160;  // the node, and what malloc adds to it, the key and the value
  static size_t BytesOf(const Rows::value_type& row) {
    return kRowBytes + row.first.size() + (row.second ? row.second->size() : 0);
  }
  void Set(std::string_view key, Row value) {
    auto at = rows_.lower_bound(key);
    if (at != rows_.end() && at->first == key) {
      bytes_ -= BytesOf(*at);
      at->second = std::move(value);
    } else {
      at = rows_.emplace_hint(at, key, std::move(value));
    }
    bytes_ += BytesOf(*at);
  }

  Rows rows_;
  size_t bytes_ = 0;
};

}  // namespace mirage
