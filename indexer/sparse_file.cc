#include "indexer/sparse_file.h"

#include <algorithm>
#include <charconv>
#include <memory>

#include "indexer/libguestfs.h"

namespace mirage {
namespace {

constexpr int kPieceBytes = 2 << 20;  // an answer holds 4 MiB

std::string Quote(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string_view TakeNumber(std::string_view text, uint64_t& value) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? text.substr(static_cast<size_t>(end - text.data())) : std::string_view();
}

// libguestfs has no call that tells where a file has holes. Its shell in the appliance has filefrag; it is told the
// file by a descriptor, so that a name cannot speak in what it prints.
// Nothing: it did not say.
std::optional<std::vector<DataRange>> FindData(guestfs_h* g, const std::string& place) {
  const std::string command = "filefrag -v -b1 /proc/self/fd/0 < " + Quote("/sysroot" + place);
  char* arguments[] = {const_cast<char*>(command.c_str()), nullptr};
  Guestfs().push_error_handler(g, nullptr, nullptr);
  const GuestText text(Guestfs().debug(g, "sh", arguments));
  Guestfs().pop_error_handler(g);
  return text ? ParseFilefrag(text.get()) : std::nullopt;
}

}  // namespace

std::optional<std::vector<DataRange>> ParseFilefrag(std::string_view text) {
  std::vector<DataRange> ranges;
  bool table = false, end = false;
  // A file without data has no table: "NAME: 0 extents found".
  if (text.ends_with(": 0 extents found\n") && text.find("\n ext:") == std::string_view::npos) return ranges;
  while (!text.empty()) {
    std::string_view line = text.substr(0, std::min(text.find('\n'), text.size()));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.starts_with(" ext:")) {
      table = true;
      continue;
    }
    if (!table || end) continue;
    if (line.find(" found") != std::string_view::npos) {  // "NAME: 3 extents found"
      end = true;
      continue;
    }
    // "   0:     4096..    8191:     40960..     45055:   4096:    40960: last,unwritten,eof"
    uint64_t number = 0, first = 0, last = 0;
    line = TakeNumber(line, number);
    if (!line.starts_with(':') || number != ranges.size()) return std::nullopt;
    line = TakeNumber(line.substr(1), first);
    if (!line.starts_with("..")) return std::nullopt;
    line = TakeNumber(line.substr(2), last);
    if (!line.starts_with(':') || last < first || last > INT64_MAX) return std::nullopt;
    if (!ranges.empty() && first < ranges.back().first + ranges.back().second) return std::nullopt;
    // An unwritten one keeps its place, so that numbers go on, but holds nothing.
    const bool unwritten = line.substr(line.rfind(':')).find("unwritten") != std::string_view::npos;
    ranges.emplace_back(first, unwritten ? 0 : last - first + 1);
  }
  if (!end) return std::nullopt;
  std::erase_if(ranges, [](const DataRange& range) { return range.second == 0; });
  return ranges;
}

Status ReadSparseFile(Appliance& appliance, const std::string& directory, const std::string& prefix,
                      const SparseFile& file, ImportSink& sink) {
  const std::string path = prefix.empty() ? file.name : prefix + "/" + file.name;
  const std::string place = (directory == "/" ? "" : directory) + "/" + file.name;
  uint64_t at = 0;
  const auto to = [&](uint64_t end) -> Status {
    if (end > at) TRY(sink.AppendHole(end - at));
    at = std::max(at, end);
    return {};
  };
  auto ranges = FindData(appliance.handle(), place);
  if (!ranges) {  // its holes come as zeros
    if (Status counted = sink.CountHole(file.holes); !counted) {
      return Annotate(std::move(counted).error(), "/" + path);
    }
    ranges = {{0, file.size}};
  }
  TRY(sink.BeginFile(path, file.entry, file.xattrs));
  for (const auto& [begin, length] : *ranges) {
    if (begin >= file.size) break;
    TRY(to(begin));
    const uint64_t end = begin + std::min(length, file.size - begin);
    while (at < end) {
      if (appliance.interrupted()) return Fail(EINTR, "interrupted; the library is as it was");
      size_t got = 0;
      const int wanted = static_cast<int>(std::min<uint64_t>(end - at, kPieceBytes));
      const GuestText bytes(
          Guestfs().pread(appliance.handle(), place.c_str(), wanted, static_cast<int64_t>(at), &got));
      if (!bytes) return appliance.Failed(fmt::format("/{} cannot be read", path));
      if (got == 0 || got > static_cast<size_t>(wanted)) return Fail(EIO, "/{} is shorter than its size", path);
      TRY(sink.AppendFile(std::string_view(bytes.get(), got)));
      at += got;
    }
  }
  TRY(to(file.size));
  return sink.EndFile();
}

}  // namespace mirage
