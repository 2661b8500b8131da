#include "tools/verbs.h"
#include "tools/version_path.h"

namespace mirage {
namespace {

struct Arguments {
  std::vector<std::string> places;
  bool long_form = false, recursive = false;
};

// Lists one place of one version.
class Lister {
 public:
  Lister(Session& session, const TreeReader& reader, const Manifest& manifest, bool long_form)
      : out_(*session.out), json_(session.json), reader_(reader), manifest_(manifest), long_form_(long_form) {}

  // Link counts: from the version's groups, all at once, and only where they are shown.
  Status Prepare() {
    if ((!long_form_ && !json_) || manifest_.links.IsZero()) return {};
    ASSIGN_OR_RETURN(const auto groups, reader_.LinkGroups(manifest_.links));
    for (const auto& [first, members] : groups) {
      for (const std::string& member : members) counts_[member] = members.size();
    }
    return {};
  }

  // `path` from the root, "/etc/passwd"; `shown` is what a line of text calls it.
  Status Print(const std::string& path, std::string_view shown, const Entry& entry) {
    const auto found = counts_.find(path.substr(1));
    const uint64_t links = entry.is_directory() ? 2 + entry.size : found != counts_.end() ? found->second : 1;
    if (json_) {
      Json json = EntryJson(path, entry);
      json["links"] = links;
      if (entry.type == FileType::kSymlink && entry.target.empty()) {
        ASSIGN_OR_RETURN(const std::string target, reader_.SymlinkTarget(entry));
        AddText(json, "target", target);
      }
      out_.Object(json);
      return {};
    }
    if (!long_form_) {
      out_.PathLine("", shown);
      return {};
    }
    const bool device = entry.type == FileType::kCharDevice || entry.type == FileType::kBlockDevice;
    const std::string size = device ? fmt::format("{},{}", entry.rdev_major, entry.rdev_minor)
                             : entry.type == FileType::kRegular || entry.type == FileType::kSymlink
                                 ? fmt::format("{}", entry.size)
                                 : "-";
    const std::string prefix = fmt::format("{} {:>3} {:>5} {:>5} {:>10} {} ", FormatMode(entry.type, entry.mode), links,
                                           entry.uid, entry.gid, size, FormatTime(entry.mtime_sec, entry.mtime_nsec));
    std::string suffix;
    if (entry.type == FileType::kSymlink) {
      ASSIGN_OR_RETURN(const std::string target, reader_.SymlinkTarget(entry));
      suffix = " -> " + out_.Fit(target);
    }
    out_.PathLine(prefix, shown, suffix);
    return {};
  }

  Status PrintDirectory(const std::string& path, const Entry& directory, bool recursive) {
    const std::string base = path == "/" ? "" : path;
    if (recursive) {
      return reader_.Walk(directory, [&](const std::string& below, const Entry& entry) -> Result<bool> {
        if (below.empty()) return true;
        const std::string full = base + "/" + below;
        TRY(Print(full, full, entry));
        return true;
      });
    }
    Status status;
    TRY(reader_.Scan(directory.id, 0, [&](std::string_view name, const Entry& entry) {
      status = Print(fmt::format("{}/{}", base, name), name, entry);
      return status.has_value();
    }));
    return status;
  }

 private:
  Output& out_;
  const bool json_;
  const TreeReader& reader_;
  const Manifest& manifest_;
  const bool long_form_;
  std::map<std::string, size_t> counts_;
};

}  // namespace

Action DeclareLs(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positionals("V[:PATH]", arguments->places, "versions, or paths in them", 1, 0);
  options.Flag("-l", arguments->long_form, "mode, links, uid, gid, size, mtime, name");
  options.Flag("-R,--recursive", arguments->recursive, "all below, as paths from the root");
  return [arguments](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    const auto snapshot = library->snapshot();
    const TreeReader reader(library);
    for (const std::string& place : arguments->places) {
      // As ls(1): a link that is named is followed to a directory, but shown itself with -l.
      const bool follow = !arguments->long_form || place.ends_with('/');
      auto found = LocateArgument(*snapshot, reader, place, follow);
      if (!found && follow && (found.error().code == ENOENT || found.error().code == ELOOP)) {
        found = LocateArgument(*snapshot, reader, place, false);  // a dangling link is listed as what it is
      }
      if (!found) return tl::make_unexpected(std::move(found).error());
      Lister lister(session, reader, found->version.manifest, arguments->long_form);
      TRY(lister.Prepare());
      if (found->at.entry.is_directory()) {
        TRY(lister.PrintDirectory(found->at.path, found->at.entry, arguments->recursive));
      } else {
        TRY(lister.Print(found->at.path, found->at.path, found->at.entry));
      }
    }
    return kExitDone;
  };
}

}  // namespace mirage
