// Bytes as the pieces they lie in: views into decoded blocks, which live as long as the object. Whoever takes them (the kernel, by
// writev) copies them once.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mirage {

class Pieces {
 public:
  // Behind all others; one that continues the last in memory makes it longer. `owner` keeps the bytes.
  void Add(std::string_view bytes, std::shared_ptr<const void> owner) {
    if (bytes.empty()) return;
    size_ += bytes.size();
    if (!views_.empty() && views_.back().data() + views_.back().size() == bytes.data() && owners_.back() == owner) {
      views_.back() = {views_.back().data(), views_.back().size() + bytes.size()};
      return;
    }
    views_.push_back(bytes);
    owners_.push_back(std::move(owner));
  }
  void AddZeros(size_t count) {
    static constexpr std::array<char, 64 << 10> kZeros{};
    for (; count > 0; count -= std::min(count, kZeros.size())) Add({kZeros.data(), std::min(count, kZeros.size())}, nullptr);
  }
  void AddOwned(std::string bytes) {
    const auto owner = std::make_shared<const std::string>(std::move(bytes));
    Add(*owner, owner);
  }
  // Drops all from `size` on.
  void ShrinkTo(size_t size) {
    while (size_ > size) {
      std::string_view& last = views_.back();
      const size_t drop = std::min(size_ - size, last.size());
      size_ -= drop;
      last.remove_suffix(drop);
      if (!last.empty()) break;
      views_.pop_back();
      owners_.pop_back();
    }
  }
  void Clear() { ShrinkTo(0); }
  void AppendTo(std::string* out) const {
    out->reserve(out->size() + size_);
    for (const std::string_view view : views_) out->append(view);
  }

  size_t size() const { return size_; }
  const std::vector<std::string_view>& views() const { return views_; }

 private:
  std::vector<std::string_view> views_;             // none is empty
  std::vector<std::shared_ptr<const void>> owners_;  // of each
  size_t size_ = 0;
};

}  // namespace mirage
