// Values in the scratch files of one import: of this process alone, so in the host's order and with no versions.
#pragma once

#include <cstring>
#include <string>
#include <string_view>

namespace mirage {

template <typename T>
void PutScratch(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
// The caller has looked that enough is there.
template <typename T>
void TakeScratch(std::string_view& in, T& value) {
  std::memcpy(&value, in.data(), sizeof value);
  in.remove_prefix(sizeof value);
}

}  // namespace mirage
