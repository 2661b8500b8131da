#include "tools/change_printer.h"

#include <algorithm>

#include "tools/text_patch.h"
#include "tools/version_path.h"

namespace mirage {
namespace {

constexpr std::pair<char, std::string_view> kNames[] = {
    {'A', "added"}, {'D', "deleted"}, {'M', "content"}, {'m', "metadata"}, {'T', "type"}};

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

uint64_t Bytes(const std::optional<Entry>& entry) {
  return entry && entry->type == FileType::kRegular ? entry->size : 0;
}

// Each line of a patch for a terminal: its file may hold escape sequences.
std::string Printable(const std::string& patch) {
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

}  // namespace

Status ChangePrinter::Print(const Change& change) {
  ++total_;
  ++counts_[static_cast<char>(change.kind)];
  const uint64_t before = Bytes(change.before), after = Bytes(change.after);
  added_bytes_ += after > before ? after - before : 0;
  removed_bytes_ += before > after ? before - after : 0;
  std::vector<std::string> attributes;
  std::string patch;
  if (options_.patch) {
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
    if (options_.patch) AddText(json, "patch", patch);
    out_.Object(json);
    return {};
  }
  std::string suffix;
  if (options_.statistics) {
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

void ChangePrinter::PrintStatistics() {
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

Result<std::string> ChangePrinter::Patch(const Change& change) const {
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

}  // namespace mirage
