#include "store/fsck_log.h"

#include <algorithm>

namespace mirage {
namespace {

constexpr size_t kChecksumDigits = 64;
constexpr size_t kMostTried = 4096;             // bytes of a line that are tried one by one
constexpr uint64_t kMostLogBytes = 1ULL << 30;  // of a damaged log, which is held in memory

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsRecord(std::string_view line, const ObjectId& chain, uint64_t sequence) {
  ObjectId ignored;
  const auto record = DecodeRefRecord(line, chain, &ignored);
  return record && record->sequence == sequence;
}

// What stands at the end was being written when the power went: all of a record but its newline, of which there is nothing,
// or a zero. It was never committed, as little as one that misses more.
bool IsTorn(std::string_view end, const ObjectId& chain, uint64_t sequence) {
  if (end.ends_with('\0')) end.remove_suffix(1);
  return IsRecord(std::string(end) + "\n", chain, sequence);
}

// A byte of the body: the one that makes it hash to the checksum field. Single bits first, they are what disks flip.
std::optional<std::string> MendBody(std::string line, const ObjectId& chain, uint64_t sequence) {
  if (line.size() < kChecksumDigits + 2 || line.size() > kMostTried) return std::nullopt;
  const size_t body = line.size() - kChecksumDigits - 1;
  const auto wanted = ObjectId::FromHex(std::string_view(line).substr(body, kChecksumDigits));
  if (!wanted) return std::nullopt;
  std::string bytes(chain.view());
  bytes += line.substr(0, body);
  for (const bool one_bit : {true, false}) {
    for (size_t i = 0; i < body; ++i) {
      char& c = bytes[ObjectId::kSize + i];
      const char before = c;
      for (unsigned step = 0; step < (one_bit ? 8U : 256U); ++step) {
        c = one_bit ? static_cast<char>(before ^ (1 << step)) : static_cast<char>(step);
        // A record is of printable bytes and tabs.
        if ((c < 0x20 && c != '\t') || c == 0x7f || HashBytes(bytes) != *wanted) continue;
        line[i] = c;
        if (IsRecord(line, chain, sequence)) return line;
      }
      c = before;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> MendRefRecord(std::string_view text, const ObjectId& chain, uint64_t sequence,
                                         size_t* consumed) {
  const size_t newline = text.find('\n');
  const std::string_view line = text.substr(0, newline == std::string_view::npos ? text.size() : newline + 1);
  *consumed = line.size();
  // The checksum field itself, one digit of it: the body hashes to all the others.
  if (line.size() > kChecksumDigits + 2 && line.back() == '\n') {
    const size_t body = line.size() - kChecksumDigits - 1;
    const std::string right = HashBytes(std::string(chain.view()) + std::string(line.substr(0, body))).Hex();
    size_t differing = 0;
    for (size_t i = 0; i < kChecksumDigits; ++i) differing += right[i] != line[body + i];
    const std::string mended = std::string(line.substr(0, body)) + right + "\n";
    if (differing <= 1 && IsRecord(mended, chain, sequence)) return mended;
  }
  // The newline: where a tab and a checksum stand before it.
  for (size_t at = kChecksumDigits + 1; at < std::min(line.size(), kMostTried); ++at) {
    if (line[at - kChecksumDigits - 1] != '\t' || !IsHex(line.substr(at - kChecksumDigits, kChecksumDigits))) continue;
    const std::string mended = std::string(line.substr(0, at)) + "\n";
    if (!IsRecord(mended, chain, sequence)) continue;
    *consumed = at + 1;
    return mended;
  }
  if (auto mended = MendBody(std::string(line), chain, sequence)) return mended;
  // A byte that became a newline: two lines were one.
  if (newline == std::string_view::npos) return std::nullopt;
  const size_t second = text.find('\n', newline + 1);
  if (second == std::string_view::npos) return std::nullopt;
  *consumed = second + 1;
  return MendBody(std::string(text.substr(0, second + 1)), chain, sequence);
}

Result<RefLogCheck> CheckRefLog(Env& env, const std::string& path,
                                const std::function<Status(const RefRecord&)>& visit) {
  RefLogCheck check;
  const RefLog log(env, path);
  Status visited;
  uint64_t visited_to = 0;  // the number of the last record visited
  const auto keep = [&](const RefRecord& record) -> Status {
    visited = visit(record);
    visited_to = record.sequence;
    return visited;
  };
  const auto end = log.Replay({}, keep);
  if (!visited) return tl::make_unexpected(visited.error());
  ASSIGN_OR_RETURN(const uint64_t size, log.SizeBytes());
  if (end && size == end->offset) {
    check.end = *end;
    return check;
  }
  // Something is wrong with it, if only at its end: all of it once more, from memory. What was visited is not visited
  // again.
  ASSIGN_OR_RETURN(std::string text, ReadWholeFile(env, path, kMostLogBytes));
  std::string mended(kRefLogHeader);
  if (!text.starts_with(kRefLogHeader)) {
    size_t differing = text.size() < kRefLogHeader.size() ? kRefLogHeader.size() : 0;
    for (size_t i = 0; differing < 2 && i < kRefLogHeader.size(); ++i) differing += text[i] != kRefLogHeader[i];
    check.damage.push_back("refs.log: it does not begin as a ref log");
    if (differing > 1) {
      check.whole = false;
      return check;
    }
  }
  bool mends = !check.damage.empty();
  ObjectId chain;
  uint64_t sequence = 0;
  size_t at = kRefLogHeader.size();
  while (at < text.size()) {
    const size_t newline = text.find('\n', at);
    std::string line = text.substr(at, newline == std::string::npos ? newline : newline + 1 - at);
    size_t consumed = line.size();
    ObjectId next;
    auto record = DecodeRefRecord(line, chain, &next);
    if (!record || record->sequence != sequence + 1) {
      if (newline == std::string::npos && IsTorn(line, chain, sequence + 1)) break;
      auto again = MendRefRecord(std::string_view(text).substr(at), chain, sequence + 1, &consumed);
      if (!again) {
        const size_t behind = newline == std::string::npos ? text.size() : newline + 1;
        if (behind >= text.size()) break;  // never committed
        check.damage.push_back(fmt::format("refs.log: record {} at byte {} {}, and there are records behind it",
                                           sequence + 1, at, record ? "has another number" : record.error().message));
        check.whole = false;
        break;
      }
      check.damage.push_back(fmt::format("refs.log: record {} at byte {} is damaged in one byte", sequence + 1, at));
      mends = true;
      line = std::move(*again);
      record = DecodeRefRecord(line, chain, &next);
    }
    if (sequence + 1 > visited_to) TRY(visit(*record));
    ++sequence;
    chain = next;
    mended += line;
    at += consumed;
  }
  check.end = {sequence, mended.size(), chain};
  if (mends && check.whole) check.mended = std::move(mended);
  return check;
}

}  // namespace mirage
