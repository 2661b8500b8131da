#include "tools/version_path.h"

#include <vector>

#include "tools/completeness.h"

namespace mirage {
namespace {

constexpr int kMaxLinks = 40;  // as Linux

// Pushes the components of `path` so that the first is on top.
void PushComponents(std::string_view path, std::vector<std::string>* pending) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    if (!part.empty() && part != ".") parts.emplace_back(part);
    at = end + 1;
  }
  pending->insert(pending->end(), parts.rbegin(), parts.rend());
}

}  // namespace

Result<Located> LocatePath(const TreeReader& reader, const Manifest& manifest, std::string_view path,
                           bool follow_last) {
  struct Step {
    std::string name;
    Entry entry;
  };
  std::vector<Step> steps;  // from the root down to where we are
  const auto current = [&]() -> const Entry& { return steps.empty() ? manifest.root : steps.back().entry; };
  std::vector<std::string> pending;
  PushComponents(path, &pending);
  const bool must_be_directory = path.ends_with('/');
  int links = 0;
  while (!pending.empty()) {
    const std::string name = std::move(pending.back());
    pending.pop_back();
    if (!current().is_directory()) return Fail(ENOTDIR, "{}: {} is not a directory", path, steps.back().name);
    if (name == "..") {
      if (!steps.empty()) steps.pop_back();
      continue;
    }
    ASSIGN_OR_RETURN(const auto entry, reader.Lookup(current().id, name));
    if (!entry) return Fail(ENOENT, "{}: no such file in this version", path);
    if (entry->type == FileType::kSymlink && (follow_last || must_be_directory || !pending.empty())) {
      if (++links > kMaxLinks) return Fail(ELOOP, "{}: too many symbolic links", path);
      ASSIGN_OR_RETURN(const std::string target, reader.SymlinkTarget(*entry));
      if (target.starts_with('/')) steps.clear();
      PushComponents(target, &pending);
      continue;
    }
    steps.push_back({name, *entry});
  }
  Located located{"", current()};
  for (const Step& step : steps) located.path += "/" + step.name;
  if (located.path.empty()) located.path = "/";
  if (must_be_directory && !located.entry.is_directory()) return Fail(ENOTDIR, "{}: not a directory", path);
  return located;
}

Result<LocatedInVersion> LocateArgument(const Snapshot& snapshot, const TreeReader& reader, const std::string& argument,
                                        bool follow_last) {
  ASSIGN_OR_RETURN(VersionPath named, ResolveVersionPath(snapshot, argument));
  TRY(CheckContents(snapshot, named.version.id));
  auto located = LocatePath(reader, named.version.manifest, named.path.value_or("/"), follow_last);
  if (!located) return Annotate(std::move(located).error(), argument.substr(0, argument.find(':')));
  WarnIfIncomplete(argument.substr(0, argument.find(':')), named.version.manifest);
  return LocatedInVersion{std::move(named.version), std::move(*located)};
}

Result<std::string> TreePath(std::string_view path) {
  std::vector<std::string> parts;
  PushComponents(path, &parts);
  std::string out;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (*part == "..") return Fail(EINVAL, "{}: \"..\" in a path; give it without", path);
    if (!out.empty()) out += '/';
    out += *part;
  }
  return out;
}

}  // namespace mirage
