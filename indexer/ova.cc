#include "indexer/ova.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "indexer/byte_stream.h"
#include "indexer/container_files.h"
#include "indexer/scratch_file.h"

namespace mirage {
namespace {

constexpr size_t kMaxDescriptorBytes = 4 << 20;
constexpr size_t kMaxDisks = 64;  // more than an appliance takes is refused there
constexpr size_t kPieceBytes = 1 << 20;

using Attributes = std::map<std::string, std::string, std::less<>>;

std::string Unescape(std::string_view text) {
  static constexpr std::pair<std::string_view, char> kEntities[] = {
      {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
  std::string out;
  while (!text.empty()) {
    size_t taken = 1;
    char c = text[0];
    for (const auto& [entity, means] : kEntities) {
      if (!text.starts_with(entity)) continue;
      c = means;
      taken = entity.size();
    }
    out += c;
    text.remove_prefix(taken);
  }
  return out;
}

std::string_view LocalName(std::string_view name) { return name.substr(name.find(':') + 1); }

// Every element's start, without its namespace. No entities but XML's own, no document types, so nothing expands.
Status ForEachElement(std::string_view xml, const std::function<void(std::string_view, const Attributes&)>& visit) {
  const auto damaged = [] { return Fail(EINVAL, "its OVF descriptor does not parse"); };
  for (;;) {
    const size_t begin = xml.find('<');
    if (begin == std::string_view::npos) return {};
    xml.remove_prefix(begin);
    const auto skip = [&](std::string_view start, std::string_view end) {
      if (!xml.starts_with(start)) return false;
      const size_t at = xml.find(end);
      xml = at == std::string_view::npos ? std::string_view() : xml.substr(at + end.size());
      return true;
    };
    if (skip("<!--", "-->") || skip("<![CDATA[", "]]>") || skip("<?", "?>") || skip("</", ">")) continue;
    if (xml.starts_with("<!")) return damaged();
    xml.remove_prefix(1);
    const size_t name_end = xml.find_first_of(" \t\r\n/>");
    if (name_end == std::string_view::npos) return damaged();
    const std::string_view name = LocalName(xml.substr(0, name_end));
    xml.remove_prefix(name_end);
    Attributes attributes;
    for (;;) {
      xml.remove_prefix(std::min(xml.find_first_not_of(" \t\r\n/"), xml.size()));
      if (xml.empty()) return damaged();
      if (xml[0] == '>') break;
      const size_t equals = xml.find('=');
      const size_t open = equals == std::string_view::npos ? equals : xml.find_first_not_of(" \t\r\n", equals + 1);
      if (open == std::string_view::npos || (xml[open] != '"' && xml[open] != '\'')) return damaged();
      const size_t close = xml.find(xml[open], open + 1);
      if (close == std::string_view::npos) return damaged();
      std::string_view key = xml.substr(0, equals);
      key = LocalName(key.substr(0, key.find_last_not_of(" \t\r\n") + 1));
      attributes[std::string(key)] = Unescape(xml.substr(open + 1, close - open - 1));
      xml.remove_prefix(close + 1);
    }
    visit(name, attributes);
  }
}

using Read = std::function<Result<size_t>(char*, size_t)>;

// `taken`: what was read of the archive for it.
Status WriteFile(const std::string& path, const Read& read, const std::function<uint64_t()>& taken) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return FailErrno(errno, path);
  const std::unique_ptr<const int, void (*)(const int*)> owner(&fd, [](const int* owned) { close(*owned); });
  std::string piece(kPieceBytes, '\0');
  ScratchFile file(fd);
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, read(piece.data(), piece.size()));
    if (n == 0) break;
    TRY(file.Append({piece.data(), n}, taken()));
  }
  return file.Finish();
}

}  // namespace

bool LooksLikeOva(std::string_view head) {
  constexpr size_t kMagicOffset = 257, kNameBytes = 100;
  if (head.size() < 512 || head.substr(kMagicOffset, 5) != "ustar") return false;
  const std::string_view field = head.substr(0, kNameBytes);
  return field.substr(0, field.find('\0')).ends_with(".ovf");
}

Result<std::vector<OvaDisk>> ParseOvf(std::string_view xml) {
  std::map<std::string, Attributes> files;
  std::vector<std::string> references;
  TRY(ForEachElement(xml, [&](std::string_view name, const Attributes& attributes) {
    const auto value = [&](std::string_view key) {
      const auto found = attributes.find(key);
      return found == attributes.end() ? std::string() : found->second;
    };
    if (name == "File" && !value("id").empty()) files[value("id")] = attributes;
    if (name == "Disk" && !value("fileRef").empty()) references.push_back(value("fileRef"));
  }));
  if (references.empty()) return Fail(EINVAL, "its OVF descriptor names no disks");
  if (references.size() > kMaxDisks) return Fail(EINVAL, "its OVF descriptor names {} disks", references.size());
  std::vector<OvaDisk> disks;
  for (const std::string& reference : references) {
    const auto found = files.find(reference);
    if (found == files.end()) return Fail(EINVAL, "its OVF descriptor has a disk of no file: {}", reference);
    OvaDisk disk{found->second["href"], !found->second["compression"].empty()};
    disk.compressed = disk.compressed && found->second["compression"] != "identity";
    if (found->second.contains("chunkSize")) return Fail(EINVAL, "the disk {} lies in pieces", disk.file);
    disks.push_back(std::move(disk));
  }
  return disks;
}

Result<std::vector<std::string>> ExtractOva(const std::string& path, const std::string& scratch,
                                            const std::atomic<bool>* interrupted) {
  ContainerFiles::ArchiveOptions options;
  options.path = path;
  options.scratch = scratch;
  options.any = true;
  options.interrupted = interrupted;
  ASSIGN_OR_RETURN(const auto files, ContainerFiles::OpenArchive(options));
  std::string descriptor;
  for (const std::string& name : files->Names()) {
    if (!name.ends_with(".ovf")) continue;
    if (!descriptor.empty()) return Fail(EINVAL, "it has several OVF descriptors");
    descriptor = name;
  }
  ASSIGN_OR_RETURN(const std::string xml, files->ReadWhole(descriptor, kMaxDescriptorBytes));
  ASSIGN_OR_RETURN(const std::vector<OvaDisk> disks, ParseOvf(xml));
  std::vector<std::string> paths;
  std::set<uint64_t> places;
  for (const OvaDisk& disk : disks) {
    auto part = files->Find(disk.file);
    if (!part) return Annotate(std::move(part).error(), "its OVF descriptor's disk");
    uint64_t at = 0;
    const auto read = [&](char* out, size_t size) -> Result<size_t> {
      if (interrupted != nullptr && interrupted->load()) return Fail(EINTR, "interrupted; the library is as it was");
      ASSIGN_OR_RETURN(const size_t n, part->ReadAt(at, out, size));
      at += n;
      return n;
    };
    // No file is two disks, under one name or under two.
    if (!places.insert(part->offset()).second) {
      return Fail(EINVAL, "its OVF descriptor has the disk {} twice", disk.file);
    }
    paths.push_back(fmt::format("{}/disk.{}", scratch, paths.size()));
    if (disk.compressed) {
      ASSIGN_OR_RETURN(const auto bytes, ByteStream::Open(read, interrupted));
      const Read uncompressed = [&](char* out, size_t size) -> Result<size_t> {
        if (interrupted != nullptr && interrupted->load()) return Fail(EINTR, "interrupted; the library is as it was");
        return bytes->Read(out, size);
      };
      TRY(WriteFile(paths.back(), uncompressed, [&] { return bytes->taken(); }));
    } else {
      TRY(WriteFile(paths.back(), read, [&] { return at; }));
    }
  }
  return paths;
}

}  // namespace mirage
