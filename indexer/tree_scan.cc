#include "indexer/tree_scan.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "indexer/libguestfs.h"

namespace mirage {
namespace {

constexpr size_t kNamesInACall = 2000;         // libguestfs's messages hold 4 MiB
constexpr uint64_t kWorthAPattern = 16 << 10;  // of a wildcard, which tar matches against every name
constexpr uint64_t kWorthAMap = 1 << 20;       // of holes, for a file to be read by its extents
constexpr size_t kMessageOverhead = 8;         // of a string: its length, and padding to four bytes

std::string Join(std::string_view directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  return fmt::format("{}/{}", directory, name);
}

Entry EntryFromStat(const struct guestfs_statns& st) {
  Entry entry;
  entry.type = FileTypeFromMode(static_cast<uint32_t>(st.st_mode));
  entry.mode = static_cast<uint16_t>(st.st_mode & 07777);
  entry.uid = static_cast<uint32_t>(st.st_uid);
  entry.gid = static_cast<uint32_t>(st.st_gid);
  entry.mtime_sec = st.st_mtime_sec;
  entry.mtime_nsec = static_cast<uint32_t>(st.st_mtime_nsec);
  if (entry.type == FileType::kCharDevice || entry.type == FileType::kBlockDevice) {
    entry.rdev_major = major(static_cast<dev_t>(st.st_rdev));
    entry.rdev_minor = minor(static_cast<dev_t>(st.st_rdev));
  }
  return entry;
}

// tar takes the pattern for this name alone.
std::string Escape(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == '*' || c == '?' || c == '[' || c == ']' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}
bool FitsALine(std::string_view name) {
  return name.find_first_of("\n\r") == std::string_view::npos && !name.ends_with(' ') && !name.ends_with('\t');
}

using AttributeList = std::unique_ptr<guestfs_xattr_list, void (*)(guestfs_xattr_list*)>;

// The attributes come as one list: for each name an element without name whose value is a number, then so many.
bool TakeXattrs(const AttributeList& list, uint32_t& position, XattrSet& xattrs) {
  if (position >= list->len) return false;
  const guestfs_xattr& head = list->val[position++];
  const auto count = std::strtoul(std::string(head.attrval, head.attrval_len).c_str(), nullptr, 10);
  for (unsigned long i = 0; i < count; ++i) {
    if (position >= list->len) return false;
    const guestfs_xattr& attribute = list->val[position++];
    xattrs.emplace(attribute.attrname, std::string(attribute.attrval, attribute.attrval_len));
  }
  return true;
}

}  // namespace

bool TarExcludes::Keep(std::string pattern, uint64_t saved_bytes) {
  bytes_ += pattern.size() + kMessageOverhead;
  by_savings_.emplace(saved_bytes, std::move(pattern));
  while (bytes_ > limit_bytes_ && !by_savings_.empty()) {
    bytes_ -= by_savings_.begin()->second.size() + kMessageOverhead;
    by_savings_.erase(by_savings_.begin());
  }
  return true;
}
bool TarExcludes::Add(std::string_view name, uint64_t saved_bytes) {
  return FitsALine(name) && Keep("./" + Escape(name), saved_bytes);
}
bool TarExcludes::AddAllBelow(std::string_view directory, uint64_t saved_bytes) {
  return FitsALine(directory) && Keep("./" + Escape(directory) + "/*", saved_bytes);
}
void TarExcludes::AddPattern(std::string pattern) {
  bytes_ += pattern.size() + kMessageOverhead;
  always_.push_back(std::move(pattern));
}
const std::vector<std::string>& TarExcludes::patterns() {
  all_ = always_;
  for (const auto& [saved, pattern] : by_savings_) all_.push_back(pattern);
  return all_;
}

std::string TreeScan::VersionPath(const std::string& name) const {
  return name.empty() ? options_.prefix : Join(options_.prefix, name);
}
std::string TreeScan::GuestPath(const std::string& directory) const {
  const std::string below = Join(options_.directory == "/" ? "" : options_.directory, directory);
  return below.starts_with('/') ? below : "/" + below;
}

Status TreeScan::Run(PathSpool& names, const std::function<void(const std::string& name)>& handled) {
  handled_ = handled;
  stack_.emplace_back();
  PathSpool::Cursor cursor(names);
  for (;;) {
    if (appliance_.interrupted()) return Fail(EINTR, "interrupted; the library is as it was");
    ASSIGN_OR_RETURN(const bool more, cursor.Next());
    if (!more) break;
    const std::string& path = cursor.path();
    const size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "" : path.substr(0, slash);
    while (stack_.back().path != directory &&
           (!directory.starts_with(stack_.back().path) || stack_.back().path.size() >= directory.size() ||
            (!stack_.back().path.empty() && directory[stack_.back().path.size()] != '/'))) {
      TRY(Leave());
    }
    if (stack_.back().path != directory) {  // its parent was listed before it, so that it is one below
      Frame frame;
      frame.path = directory;
      stack_.push_back(std::move(frame));
    }
    if (sink_.Excluded(VersionPath(path))) {
      handled_(path);
      continue;
    }
    Frame& frame = stack_.back();
    frame.pending.push_back(slash == std::string::npos ? path : path.substr(slash + 1));
    if (frame.pending.size() >= kNamesInACall) TRY(Flush(frame));
  }
  while (!stack_.empty()) TRY(Leave());
  return {};
}

// The directory's names are all known: whether it can be left out as a whole is for the one above to say.
Status TreeScan::Leave() {
  TRY(Flush(stack_.back()));
  Frame frame = std::move(stack_.back());
  stack_.pop_back();
  for (const auto& [name, child] : frame.directories) {
    frame.bytes += child.bytes;
    if (child.same && child.whole) {
      frame.same.emplace_back(name, child.bytes);
      continue;
    }
    frame.whole = false;
    if (child.whole && !child.empty && child.bytes >= kWorthAPattern) {
      excludes_.AddAllBelow(Join(frame.path, name), child.bytes);
    }
  }
  if (!frame.whole || stack_.empty()) {
    for (const auto& [name, bytes] : frame.same) excludes_.Add(Join(frame.path, name), bytes);
  }
  if (stack_.empty()) return {};
  const size_t slash = frame.path.rfind('/');
  Child& own = stack_.back().directories[slash == std::string::npos ? frame.path : frame.path.substr(slash + 1)];
  own.whole = frame.whole;
  own.empty = false;
  own.bytes = frame.whole ? frame.bytes : 0;
  return {};
}

Status TreeScan::Flush(Frame& frame) {
  TRY(Ask(frame, 0, frame.pending.size()));
  frame.pending.clear();
  return TakeOthers(frame);
}

Status TreeScan::Ask(Frame& frame, size_t begin, size_t end) {
  if (begin == end) return {};
  std::vector<char*> names;
  for (size_t i = begin; i < end; ++i) names.push_back(frame.pending[i].data());
  names.push_back(nullptr);
  const std::unique_ptr<guestfs_statns_list, void (*)(guestfs_statns_list*)> stats(
      Guestfs().lstatnslist(appliance_.handle(), GuestPath(frame.path).c_str(), names.data()), Guestfs().free_statns_list);
  if (!stats) return appliance_.Failed(fmt::format("/{} cannot be read", VersionPath(frame.path)));
  if (stats->len != end - begin) return Fail(EIO, "/{}: the appliance left out an answer", VersionPath(frame.path));
  for (size_t i = begin; i < end; ++i) {
    const std::string& name = frame.pending[i];
    const struct guestfs_statns& st = stats->val[i - begin];
    if (st.st_ino < 0) return Fail(EIO, "/{} was listed, but cannot be read", VersionPath(Join(frame.path, name)));
    ASSIGN_OR_RETURN(const bool left_out, Take(frame, name, st));
    if (S_ISDIR(st.st_mode)) {
      frame.directories[name].same = left_out;
      continue;
    }
    const auto bytes = S_ISREG(st.st_mode) ? static_cast<uint64_t>(st.st_size) : 0;
    if (left_out) {
      frame.bytes += bytes;
      frame.same.emplace_back(name, bytes);
    } else {
      frame.whole = false;
    }
  }
  return {};
}

Result<bool> TreeScan::Take(Frame& frame, const std::string& name, const struct guestfs_statns& st) {
  const std::string below = Join(frame.path, name);
  std::string path = VersionPath(below);
  const bool regular = S_ISREG(st.st_mode);
  const bool several = st.st_nlink > 1 && !S_ISDIR(st.st_mode);
  const auto first = several ? firsts_.find({st.st_dev, st.st_ino}) : firsts_.end();
  if (first != firsts_.end() && first->second.added) {
    TRY(sink_.AddLink(std::move(path), first->second.path));
    handled_(below);
    return true;
  }
  if (first != firsts_.end()) {  // tar knows which files are links, but not which fifos and devices
    if (regular || S_ISLNK(st.st_mode)) return false;
    TRY(sink_.AddLink(std::move(path), first->second.path));
    handled_(below);
    return true;
  }
  const Entry entry = EntryFromStat(st);
  const auto size = static_cast<uint64_t>(st.st_size);
  bool added = false, mapped = false;  // mapped: a filesystem that tells where a file has data
  if (const auto filesystem = options_.filesystems->find(st.st_dev); filesystem != options_.filesystems->end()) {
    mapped = true;
    const FileFacts facts{filesystem->second, static_cast<uint64_t>(st.st_ino), st.st_ctime_sec,
                          static_cast<uint32_t>(st.st_ctime_nsec)};
    added = sink_.Unchanged(path, entry, size, facts);
    if (added) {
      TRY(sink_.AddUnchanged(path, nullptr));
      handled_(below);
    }
  }
  const auto allocated = static_cast<uint64_t>(st.st_blocks) * 512;
  const uint64_t holes = regular && allocated < size ? size - allocated : 0;
  const bool sparse = mapped && holes >= kWorthAMap;
  if (!added && !sparse && holes > 0) {  // they come as zeros
    if (Status counted = sink_.CountHole(holes); !counted) {
      return Annotate(std::move(counted).error(), "/" + VersionPath(below));
    }
  }
  if (!added && (S_ISSOCK(st.st_mode) || sparse)) {
    others_.push_back({name, entry, size, holes});
    handled_(below);
    added = true;
  }
  if (several) firsts_.emplace(std::pair(st.st_dev, st.st_ino), First{std::move(path), added});
  return added;
}

// Sockets, which tar leaves out, and sparse files, whose holes it sends.
Status TreeScan::TakeOthers(Frame& frame) {
  for (size_t begin = 0; begin < others_.size();) {
    // Few, so that their attributes fit in one message.
    const size_t end = std::min(begin + 16, others_.size());
    std::vector<char*> names;
    for (size_t i = begin; i < end; ++i) names.push_back(others_[i].name.data());
    names.push_back(nullptr);
    const AttributeList attributes(Guestfs().lxattrlist(appliance_.handle(), GuestPath(frame.path).c_str(), names.data()),
                                   Guestfs().free_xattr_list);
    if (!attributes) return appliance_.Failed(fmt::format("/{} cannot be read", VersionPath(frame.path)));
    uint32_t position = 0;
    for (; begin < end; ++begin) {
      Other& other = others_[begin];
      const std::string below = Join(frame.path, other.name);
      XattrSet xattrs;
      if (!TakeXattrs(attributes, position, xattrs)) {
        return Fail(EIO, "/{}: the appliance gives no attributes", VersionPath(below));
      }
      if (other.entry.type == FileType::kSocket) {
        TRY(sink_.Add(VersionPath(below), std::move(other.entry), xattrs, ""));
      } else {
        sparse_.push_back({below, std::move(other.entry), std::move(xattrs), other.size, other.holes});
      }
    }
  }
  others_.clear();
  return {};
}

}  // namespace mirage
