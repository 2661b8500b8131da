#include "store/diff.h"

#include <algorithm>

#include "store/revision.h"
#include "tools/packages_report.h"
#include "tools/text_patch.h"
#include "tools/verbs.h"
#include "tools/version_path.h"

namespace mirage {
namespace {

struct Arguments {
  std::vector<std::string> sides;
  bool statistics = false, patch = false, packages = false;
};

// What differs between two entries of one path, beside the contents: "mode 0644 -> 0755".
Result<std::vector<std::string>> AttributeChanges(const TreeReader& reader, const Change& change) {
  std::vector<std::string> lines;
  if (!change.before || !change.after) return lines;
  const Entry &a = *change.before, &b = *change.after;
  const auto line = [&](std::string_view what, const std::string& from, const std::string& to) {
    if (from != to) lines.push_back(fmt::format("{} {} -> {}", what, from, to));
  };
  line("type", std::string(TypeName(a.type)), std::string(TypeName(b.type)));
  line("mode", fmt::format("{:04o}", a.mode), fmt::format("{:04o}", b.mode));
  line("owner", fmt::format("{}:{}", a.uid, a.gid), fmt::format("{}:{}", b.uid, b.gid));
  line("mtime", FormatTime(a.mtime_sec, a.mtime_nsec), FormatTime(b.mtime_sec, b.mtime_nsec));
  line("device", fmt::format("{},{}", a.rdev_major, a.rdev_minor), fmt::format("{},{}", b.rdev_major, b.rdev_minor));
  if (a.type == FileType::kSymlink && b.type == FileType::kSymlink) {
    ASSIGN_OR_RETURN(const std::string from, reader.SymlinkTarget(a));
    ASSIGN_OR_RETURN(const std::string to, reader.SymlinkTarget(b));
    line("target", from, to);
  }
  if (a.xattrs != b.xattrs) {
    ASSIGN_OR_RETURN(const XattrSet from, reader.Xattrs(a));
    ASSIGN_OR_RETURN(const XattrSet to, reader.Xattrs(b));
    for (const auto& [name, value] : from) {
      const auto found = to.find(name);
      if (found == to.end()) lines.push_back("xattr removed: " + EscapeBytes(name));
      if (found != to.end() && found->second != value) lines.push_back("xattr changed: " + EscapeBytes(name));
    }
    for (const auto& [name, value] : to) {
      if (!from.contains(name)) lines.push_back("xattr added: " + EscapeBytes(name));
    }
  }
  if (change.links_changed) lines.push_back("hard links changed");
  return lines;
}

// Prints changes as they come and counts them.
class ChangePrinter {
 public:
  ChangePrinter(Session& session, const TreeReader& reader, const Arguments& arguments)
      : session_(session), out_(*session.out), reader_(reader), arguments_(arguments) {}

  Status Print(const Change& change) {
    ++total_;
    ++counts_[static_cast<char>(change.kind)];
    const uint64_t before = Bytes(change.before), after = Bytes(change.after);
    added_bytes_ += after > before ? after - before : 0;
    removed_bytes_ += before > after ? before - after : 0;
    std::vector<std::string> attributes;
    std::string patch;
    if (arguments_.patch) {
      ASSIGN_OR_RETURN(attributes, AttributeChanges(reader_, change));
      ASSIGN_OR_RETURN(patch, Patch(change));
    }
    const std::string path = "/" + change.path;
    if (session_.json) {
      Json json;
      json["change"] = std::string(1, static_cast<char>(change.kind));
      AddText(json, "path", path);
      if (change.before) json["before"] = EntryJson(path, *change.before);
      if (change.after) json["after"] = EntryJson(path, *change.after);
      if (change.links_changed) json["links_changed"] = true;
      if (arguments_.patch) AddText(json, "patch", patch);
      out_.Object(json);
      return {};
    }
    std::string suffix;
    if (arguments_.statistics) {
      const auto side = [](const std::optional<Entry>& entry, uint64_t bytes) {
        return !entry ? std::string("-") : fmt::format("{}", bytes);
      };
      suffix = fmt::format("  {} -> {} bytes", side(change.before, before), side(change.after, after));
    }
    out_.PathLine(std::string(1, static_cast<char>(change.kind)) + " ", path, suffix);
    for (const std::string& line : attributes) out_.Line(out_.Fit(line));
    out_.Bytes(out_.terminal() ? Printable(patch) : patch);
    return {};
  }

  void PrintStatistics() {
    if (session_.json) {
      Json summary;
      for (const auto& [letter, name] : kNames) summary[std::string(name)] = counts_[letter];
      summary["added_bytes"] = added_bytes_;
      summary["removed_bytes"] = removed_bytes_;
      Json json;
      json["summary"] = std::move(summary);
      out_.Object(json);
      return;
    }
    std::string text = fmt::format("{} path{}", total_, total_ == 1 ? "" : "s");
    for (const auto& [letter, name] : kNames) {
      if (counts_[letter] > 0) text += fmt::format(", {} {}", counts_[letter], name);
    }
    out_.Line(text + fmt::format("; +{} -{} bytes", added_bytes_, removed_bytes_));
  }
  uint64_t total() const { return total_; }

 private:
  static constexpr std::pair<char, std::string_view> kNames[] = {
      {'A', "added"}, {'D', "deleted"}, {'M', "content"}, {'m', "metadata"}, {'T', "type"}};

  static uint64_t Bytes(const std::optional<Entry>& entry) {
    return entry && entry->type == FileType::kRegular ? entry->size : 0;
  }
  // Each line of a patch for a terminal: its file may hold escape sequences.
  static std::string Printable(const std::string& patch) {
    std::string text;
    for (size_t at = 0; at < patch.size();) {
      const size_t end = std::min(patch.find('\n', at), patch.size());
      std::string line = patch.substr(at, end - at);
      std::replace(line.begin(), line.end(), '\t', ' ');
      text += EscapeBytes(line) + "\n";
      at = end + 1;
    }
    return text;
  }

  Result<std::string> Patch(const Change& change) const {
    const auto regular = [](const std::optional<Entry>& entry) { return entry && entry->type == FileType::kRegular; };
    if (!regular(change.before) && !regular(change.after)) return std::string();
    if (regular(change.before) && regular(change.after) && change.before->id == change.after->id) return std::string();
    if (std::max(Bytes(change.before), Bytes(change.after)) > kMaxPatchBytes) {
      return fmt::format("Files a/{0} and b/{0} differ\n", change.path);
    }
    const auto read = [&](const std::optional<Entry>& entry) -> Result<std::optional<std::string>> {
      if (!regular(entry)) return std::optional<std::string>();
      std::string bytes;
      while (bytes.size() < entry->size) {
        const size_t before = bytes.size();
        TRY(reader_.Read(*entry, before, entry->size - before, &bytes));
        if (bytes.size() == before) return Fail(EIO, "/{}: ends too early; run `mirage fsck`", change.path);
      }
      return std::optional<std::string>(std::move(bytes));
    };
    ASSIGN_OR_RETURN(const auto before, read(change.before));
    ASSIGN_OR_RETURN(const auto after, read(change.after));
    return MakeTextPatch(change.path.empty() ? "file" : change.path, before, after);
  }

  Session& session_;
  Output& out_;
  const TreeReader& reader_;
  const Arguments& arguments_;
  uint64_t total_ = 0, added_bytes_ = 0, removed_bytes_ = 0;
  std::map<char, uint64_t> counts_;
};

// ENOENT unless one of the two has the path: a path that is nowhere must not pass for equal.
Status CheckPathIsSomewhere(const TreeReader& reader, const Manifest& a, const Manifest& b, const std::string& path) {
  for (const Manifest* manifest : {&a, &b}) {
    const auto entry = reader.Find(manifest->root, path);
    if (entry) return {};
    if (entry.error().code != ENOENT && entry.error().code != ENOTDIR) return tl::make_unexpected(entry.error());
  }
  return Fail(ENOENT, "/{}: no such path in either version", path);
}

// Two different paths: directories as if they were roots, anything else as one path.
Status DiffPlaces(const TreeReader& reader, const VersionPath& a, const VersionPath& b, ChangePrinter& printer) {
  ASSIGN_OR_RETURN(const Located from, LocatePath(reader, a.version.manifest, a.path.value_or("/"), false));
  ASSIGN_OR_RETURN(const Located to, LocatePath(reader, b.version.manifest, b.path.value_or("/"), false));
  if (from.entry.is_directory() && to.entry.is_directory()) {
    Manifest left = a.version.manifest, right = b.version.manifest;
    left.root = from.entry;
    right.root = to.entry;
    left.links = right.links = ObjectId();  // groups are of whole versions
    return DiffVersions(reader, left, right, "", [&](const Change& change) { return printer.Print(change); });
  }
  if (from.entry == to.entry) return {};
  Change change;
  change.path = to.path.substr(1);
  change.before = from.entry;
  change.after = to.entry;
  const bool same_data = from.entry.id == to.entry.id && from.entry.target == to.entry.target &&
                         from.entry.rdev_major == to.entry.rdev_major && from.entry.rdev_minor == to.entry.rdev_minor;
  change.kind = from.entry.type != to.entry.type ? ChangeKind::kType
                : same_data                      ? ChangeKind::kMetadata
                                                 : ChangeKind::kContent;
  return printer.Print(change);
}

Result<int> RunDiff(Session& session, const Arguments& arguments) {
  std::vector<std::string> sides = arguments.sides;
  if (sides.size() == 1) {
    const auto range = SplitRange(sides[0]);
    if (!range) return UsageError(fmt::format("{}: one version; give two, or A..B", sides[0]));
    sides = {range->first, range->second};
  }
  ASSIGN_OR_RETURN(const auto library, session.Open());
  const auto snapshot = library->snapshot();
  const TreeReader reader(library);
  ASSIGN_OR_RETURN(const VersionPath a, ResolveVersionPath(*snapshot, sides[0]));
  ASSIGN_OR_RETURN(const VersionPath b, ResolveVersionPath(*snapshot, sides[1]));
  if (arguments.packages) {
    if (a.path || b.path || !session.paths.empty()) return UsageError("--packages compares whole versions, not paths");
    ASSIGN_OR_RETURN(const auto before, ReadPackages(*snapshot, a.version, sides[0]));
    ASSIGN_OR_RETURN(const auto after, ReadPackages(*snapshot, b.version, sides[1]));
    return PrintPackageDifferences(session, before, after) > 0 ? 1 : 0;
  }
  ChangePrinter printer(session, reader, arguments);
  ASSIGN_OR_RETURN(const std::string path_a, TreePath(a.path.value_or("")));
  ASSIGN_OR_RETURN(const std::string path_b, TreePath(b.path.value_or("")));
  if ((a.path || b.path) && !session.paths.empty()) return UsageError("V:PATH and -- PATH do not go together");
  if (path_a != path_b) {
    TRY(DiffPlaces(reader, a, b, printer));
  } else {
    std::vector<std::string> paths;
    for (const std::string& path : session.paths) {
      ASSIGN_OR_RETURN(paths.emplace_back(), TreePath(path));
    }
    if (paths.empty()) paths.push_back(path_a);
    // Each path once, and none that lies below another.
    std::sort(paths.begin(), paths.end());
    const std::vector<std::string> all = paths;
    std::erase_if(paths, [&](const std::string& path) {
      return std::any_of(all.begin(), all.end(), [&](const std::string& other) {
        return other.size() < path.size() && (other.empty() || path.starts_with(other + "/"));
      });
    });
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    for (const std::string& path : paths)
      TRY(CheckPathIsSomewhere(reader, a.version.manifest, b.version.manifest, path));
    const auto print = [&](const Change& change) { return printer.Print(change); };
    for (const std::string& path : paths) {
      TRY(DiffVersions(reader, a.version.manifest, b.version.manifest, path, print));
    }
  }
  if (arguments.statistics) printer.PrintStatistics();
  return printer.total() > 0 ? 1 : 0;
}

}  // namespace

Action DeclareDiff(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positionals("A B", arguments->sides, "two versions, one range A..B, or two V:PATH", 1, 2);
  options.Flag("--stat", arguments->statistics, "sizes before and after, and a sum at the end");
  options.Flag("-p,--patch", arguments->patch, "what changed: attributes, and a text patch that patch -p1 takes");
  options.Flag("--packages", arguments->packages, "the installed packages: A added, D deleted, M another version");
  return [arguments](Session& session) { return RunDiff(session, *arguments); };
}

}  // namespace mirage
