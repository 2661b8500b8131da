#include "tools/verbs.h"
#include "tools/version_path.h"

namespace mirage {
namespace {

Status StatPath(Session& session, const TreeReader& reader, const LocatedInVersion& found) {
  const Manifest& manifest = found.version.manifest;
  const Entry& entry = found.at.entry;
  Output& out = *session.out;
  std::vector<std::string> group;  // other names of the same file
  if (!entry.is_directory() && !manifest.links.IsZero()) {
    ASSIGN_OR_RETURN(const auto first, reader.LinkGroup(manifest.links, found.at.path.substr(1)));
    if (first) {
      ASSIGN_OR_RETURN(auto groups, reader.LinkGroups(manifest.links));
      group = std::move(groups[*first]);
    }
  }
  const uint64_t links = entry.is_directory() ? 2 + entry.size : std::max<uint64_t>(1, group.size());
  ASSIGN_OR_RETURN(const XattrSet xattrs, reader.Xattrs(entry));
  std::string target;
  if (entry.type == FileType::kSymlink) {
    ASSIGN_OR_RETURN(target, reader.SymlinkTarget(entry));
  }
  if (session.json) {
    Json json = EntryJson(found.at.path, entry);
    if (entry.type == FileType::kSymlink) AddText(json, "target", target);
    json["links"] = links;
    json["linked"] = Json::array();
    for (const std::string& member : group) json["linked"].push_back(EscapeBytes("/" + member));
    json["xattrs"] = Json::array();
    for (const auto& [name, value] : xattrs) {
      Json item;
      AddText(item, "name", name);
      item["value_base64"] = EncodeBase64(value);
      json["xattrs"].push_back(std::move(item));
    }
    json["version"] = found.version.id.Hex();
    out.Object(json);
    return {};
  }
  out.PathLine("path: ", found.at.path);
  out.Line(fmt::format("type: {}", TypeName(entry.type)));
  out.Line(fmt::format("mode: {:04o} ({})", entry.mode, FormatMode(entry.type, entry.mode)));
  out.Line(fmt::format("uid: {}", entry.uid));
  out.Line(fmt::format("gid: {}", entry.gid));
  if (entry.type == FileType::kRegular || entry.type == FileType::kSymlink)
    out.Line(fmt::format("size: {}", entry.size));
  if (entry.type == FileType::kCharDevice || entry.type == FileType::kBlockDevice) {
    out.Line(fmt::format("device: {},{}", entry.rdev_major, entry.rdev_minor));
  }
  out.Line("mtime: " + FormatTime(entry.mtime_sec, entry.mtime_nsec));
  out.Line(fmt::format("links: {}", links));
  for (const std::string& member : group) out.PathLine("linked: ", "/" + member);
  if (entry.type == FileType::kSymlink) out.PathLine("target: ", target);
  if (entry.type == FileType::kRegular) out.Line("sha256: " + entry.id.Hex());
  if (entry.is_directory()) out.Line("tree: " + entry.id.Hex());
  // Values are bytes: text as it is, all else in base64 with "0s" before it, as getfattr(1) prints them.
  for (const auto& [name, value] : xattrs) {
    out.Line(fmt::format("xattr: {}={}", EscapeBytes(name),
                         IsCleanUtf8(value) ? "\"" + value + "\"" : "0s" + EncodeBase64(value)));
  }
  return {};
}

}  // namespace

Action DeclareStat(Options& options) {
  auto places = std::make_shared<std::vector<std::string>>();
  options.Positionals("V:PATH", *places, "paths in versions; a symbolic link itself is shown", 1, 0);
  return [places](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    const auto snapshot = library->snapshot();
    const TreeReader reader(library);
    bool first = true;
    for (const std::string& place : *places) {
      ASSIGN_OR_RETURN(const LocatedInVersion found, LocateArgument(*snapshot, reader, place, false));
      if (!first && !session.json) session.out->Line("");
      first = false;
      TRY(StatPath(session, reader, found));
    }
    return kExitDone;
  };
}

}  // namespace mirage
