#include "store/revision.h"
#include "tools/completeness.h"
#include "tools/history.h"
#include "tools/verbs.h"
#include "tools/version_report.h"

namespace mirage {
namespace {

Status ShowVersion(Session& session, const ObjectReader& reader, const ObjectId& id, const Manifest& manifest,
                   const std::vector<std::string>& names) {
  Output& out = *session.out;
  ASSIGN_OR_RETURN(const SystemFacts system, ReadSystemFacts(reader, manifest));
  if (session.json) {
    Json json = VersionJson(id, manifest, names);
    if (system.known) {
      AddText(json, "system", system.product);
      if (!system.distribution.empty()) AddText(json, "distribution", system.distribution);
      if (!system.hostname.empty()) AddText(json, "hostname", system.hostname);
      if (!system.arch.empty()) AddText(json, "arch", system.arch);
      json["packages"] = system.package_count;
    }
    json["disks"] = Json::array();
    for (const Disk& disk : manifest.disks) {
      Json item;
      AddText(item, "name", disk.name);
      AddText(item, "role", disk.role);
      item["bytes"] = disk.size_bytes;
      item["kept"] = !disk.skeleton.IsZero();
      if (!disk.sha256.IsZero()) item["sha256"] = disk.sha256.Hex();
      json["disks"].push_back(std::move(item));
    }
    json["mounts"] = Json::array();
    for (const Mount& mount : manifest.mounts) {
      Json item;
      AddText(item, "path", mount.path);
      AddText(item, "filesystem", mount.filesystem);
      AddText(item, "device", mount.device);
      json["mounts"].push_back(std::move(item));
    }
    json["omissions"] = Json::array();
    for (const std::string& omission : manifest.omissions) json["omissions"].push_back(EscapeBytes(omission));
    json["tree"] = manifest.root.id.Hex();
    json["files"] = manifest.file_count;
    json["bytes"] = manifest.total_bytes;
    out.Object(json);
    return {};
  }
  const auto line = [&](std::string_view key, std::string_view value) {
    out.Line(fmt::format("{}: {}", key, out.Fit(value)));
  };
  line("version", id.Hex());
  for (const std::string& name : names) line(name.find('/') == std::string::npos ? "branch" : "tag", name);
  for (const ObjectId& parent : manifest.parents) line("parent", parent.Hex());
  line("author", manifest.author);
  line("time", FormatTime(manifest.time_sec, manifest.time_nsec));
  if (!manifest.message.empty()) {
    // A message has lines of its own; those behind the first are indented, so that every key starts a line.
    std::string message = manifest.message;
    while (message.ends_with('\n')) message.pop_back();
    size_t start = 0;
    for (bool first = true; start <= message.size(); first = false) {
      const size_t end = std::min(message.find('\n', start), message.size());
      out.Line(fmt::format("{}{}", first ? "message: " : "         ", out.Fit(message.substr(start, end - start))));
      start = end + 1;
    }
  }
  if (!manifest.source.empty()) line("source", manifest.source);
  if (system.known) {
    if (!system.product.empty()) line("system", system.product);
    if (!system.distribution.empty()) line("distribution", system.distribution);
    if (!system.hostname.empty()) line("hostname", system.hostname);
    if (!system.arch.empty()) line("arch", system.arch);
    line("packages", fmt::format("{}", system.package_count));
  }
  for (const Disk& disk : manifest.disks) {
    const std::string what =
        fmt::format("{}{}{}, {} bytes", disk.name, disk.role.empty() ? "" : ", ", disk.role, disk.size_bytes);
    line("disk", fmt::format("{} ({})", disk.skeleton.IsZero() ? "not kept" : "kept", what));
  }
  for (const Mount& mount : manifest.mounts)
    line("mount", fmt::format("{} {} {}", mount.path, mount.filesystem, mount.device));
  for (const std::string& omission : manifest.omissions) line("omitted", omission);
  line("tree", manifest.root.id.Hex());
  line("files", fmt::format("{}", manifest.file_count));
  line("bytes", fmt::format("{}", manifest.total_bytes));
  return {};
}

}  // namespace

Action DeclareShow(Options& options) {
  auto versions = std::make_shared<std::vector<std::string>>();
  options.Positionals("VERSION", *versions, "versions, or ranges A..B", 1, 0);
  return [versions](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    const auto snapshot = library->snapshot();
    ASSIGN_OR_RETURN(const auto names, NamesOfVersions(*snapshot));
    bool first = true;
    const auto show = [&](const ObjectId& id, const Manifest& manifest) -> Status {
      const auto known = names.find(id);
      WarnIfIncomplete(known == names.end() || known->second.empty() ? "@" + id.Hex() : known->second.back(), manifest);
      if (!first && !session.json) session.out->Line("");
      first = false;
      const auto found = names.find(id);
      return ShowVersion(session, *snapshot, id, manifest,
                         found == names.end() ? std::vector<std::string>() : found->second);
    };
    for (const std::string& text : *versions) {
      if (const auto range = SplitRange(text)) {
        ASSIGN_OR_RETURN(const Version from, ResolveVersion(*snapshot, range->first));
        ASSIGN_OR_RETURN(const Version to, ResolveVersion(*snapshot, range->second));
        ASSIGN_OR_RETURN(const auto history, ReadHistory(*snapshot, {to.id}, {from.id}));
        for (const HistoryVersion& version : history) TRY(show(version.id, version.manifest));
        continue;
      }
      ASSIGN_OR_RETURN(const VersionPath named, ResolveVersionPath(*snapshot, text));
      if (named.path) return UsageError(fmt::format("{}: names a path; `mirage stat` shows paths", text));
      TRY(show(named.version.id, named.version.manifest));
    }
    return kExitDone;
  };
}

}  // namespace mirage
