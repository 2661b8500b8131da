#include <set>

#include "store/revision.h"
#include "tools/refs_report.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

struct Arguments {
  std::string name, version;
  bool remove = false, with_tags = false;
};

Status PrintBranch(Session& session, const Snapshot& snapshot, const std::string& name, const Ref& head) {
  if (!session.json) {
    session.out->Line(fmt::format("{} {}", name, head.manifest.Hex()));
    return {};
  }
  ASSIGN_OR_RETURN(const auto tags, snapshot.Tags(name));
  ASSIGN_OR_RETURN(const std::string latest, snapshot.LatestTag(name));
  Json json;
  json["branch"] = name;
  json["id"] = head.manifest.Hex();
  json["latest"] = latest;
  json["tags"] = tags.size();
  json["moved"] = FormatTime(head.time_sec, 0);
  session.out->Object(json);
  return {};
}

Status MakeBranch(Session& session, Library& library, const std::string& name, const std::string& text) {
  TRY(CheckBranchName(name));
  const auto snapshot = library.snapshot();
  ASSIGN_OR_RETURN(const Version version, ResolveVersion(*snapshot, text));
  ASSIGN_OR_RETURN(const auto existing, snapshot->Branch(name));
  if (existing) return Fail(EEXIST, "{}: there is such a branch already; choose another name", name);
  // A branch that was deleted has given some vN before; the record below says where they went, so go on behind them.
  ASSIGN_OR_RETURN(const uint64_t highest, snapshot->HighestVersion(name));
  const std::string tag = fmt::format("v{}", highest + 1);
  const auto check = [&](const Snapshot& newest) -> Status {
    ASSIGN_OR_RETURN(const uint64_t now, newest.HighestVersion(name));
    if (now != highest) return Fail(EAGAIN, "{}: made and deleted by somebody else meanwhile; try again", name);
    return {};
  };
  TRY(library.MoveRefs("branch", {{name, {}, version.id}, {name + "/" + tag, {}, version.id}}, check));
  PrintRef(session, name, tag, version.id);
  return {};
}

Status DeleteBranch(Session& session, Library& library, const std::string& name, bool with_tags) {
  const auto snapshot = library.snapshot();
  ASSIGN_OR_RETURN(const auto head, snapshot->Branch(name));
  if (!head) return Fail(ENOENT, "{}: no such branch; `mirage branch` lists them", name);
  ASSIGN_OR_RETURN(const auto tags, snapshot->Tags(name));
  if (!tags.empty() && !with_tags) {
    return Fail(ENOTEMPTY, "{}: has {} tag{}; --with-tags deletes them too", name, tags.size(),
                tags.size() == 1 ? "" : "s");
  }
  std::vector<RefMove> moves{{name, head->manifest, {}}};
  for (const auto& [tag, ref] : tags) moves.push_back({name + "/" + tag, ref.manifest, {}});
  const auto check = [&](const Snapshot& newest) -> Status {
    ASSIGN_OR_RETURN(const auto now, newest.Tags(name));
    if (now.size() != tags.size())
      return Fail(EAGAIN, "{}: its tags changed meanwhile; look at it and try again", name);
    return {};
  };
  TRY(library.MoveRefs("branch-delete", std::move(moves), check));
  session.Say(fmt::format("deleted branch {} (was @{}) and its {} tag{}", name, ShortId(head->manifest), tags.size(),
                          tags.size() == 1 ? "" : "s"));
  if (session.json) {
    Json json;
    json["deleted"] = name;
    json["id"] = head->manifest.Hex();
    json["tags"] = tags.size();
    session.out->Object(json);
  }
  return {};
}

}  // namespace

Action DeclareBranch(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positional("NAME", arguments->name, "the branch; none: list them", false);
  options.Positional("V", arguments->version, "make the branch there; its first tag is the next vN", false);
  options.Flag("-d,--delete", arguments->remove, "delete the branch");
  options.Flag("--with-tags", arguments->with_tags, "with -d: and its tags");
  return [arguments](Session& session) -> Result<int> {
    const Arguments& given = *arguments;
    if (given.remove && given.name.empty()) return UsageError("-d needs the branch's name");
    if (given.remove && !given.version.empty()) return UsageError("-d takes one branch");
    if (given.with_tags && !given.remove) return UsageError("--with-tags goes with -d");
    ASSIGN_OR_RETURN(const auto library, session.Open());
    if (given.remove) {
      TRY(DeleteBranch(session, *library, given.name, given.with_tags));
    } else if (!given.version.empty()) {
      TRY(MakeBranch(session, *library, given.name, given.version));
    } else {
      const auto snapshot = library->snapshot();
      ASSIGN_OR_RETURN(const auto branches, snapshot->Branches());
      if (!given.name.empty() && !branches.contains(given.name)) {
        return Fail(ENOENT, "{}: no such branch; give a version behind it to make it", given.name);
      }
      for (const auto& [name, head] : branches) {
        if (given.name.empty() || given.name == name) TRY(PrintBranch(session, *snapshot, name, head));
      }
    }
    return kExitDone;
  };
}

}  // namespace mirage
