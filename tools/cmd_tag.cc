#include <algorithm>
#include <charconv>

#include "store/revision.h"
#include "tools/refs_report.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

struct Arguments {
  std::vector<std::string> words;
  bool force = false, remove = false;
};

// A head keeps a tag: refuses a move after which it would have none.
Status CheckHeadKeepsTag(const Snapshot& newest, const std::string& branch, const std::string& tag,
                         const ObjectId& to) {
  ASSIGN_OR_RETURN(const auto head, newest.Branch(branch));
  if (!head) return Fail(ENOENT, "{}: no such branch; `mirage branch` lists them", branch);
  if (to == head->manifest) return {};
  ASSIGN_OR_RETURN(const auto tags, newest.Tags(branch));
  for (const auto& [name, ref] : tags) {
    if (name != tag && ref.manifest == head->manifest) return {};
  }
  return Fail(EBUSY, "{}/{}: the last tag of the branch's head; tag the head with another name first", branch, tag);
}

// A deleted vN is not given again.
Status CheckNumberIsNew(const Snapshot& newest, const std::string& branch, const std::string& tag) {
  uint64_t number = 0;
  const char* end = tag.data() + tag.size();
  if (!tag.starts_with('v') || tag.size() < 2 || tag[1] == '0') return {};
  if (const auto parsed = std::from_chars(tag.data() + 1, end, number); parsed.ec != std::errc() || parsed.ptr != end)
    return {};
  ASSIGN_OR_RETURN(const uint64_t highest, newest.HighestVersion(branch));
  if (number > highest) return {};
  return Fail(EEXIST, "{}/{}: was given once, and a vN is never given twice; choose another name", branch, tag);
}

Status ListTags(Session& session, const Snapshot& snapshot, const std::string& branch) {
  ASSIGN_OR_RETURN(const auto tags, snapshot.Tags(branch));
  std::vector<std::pair<std::string, Ref>> ordered(tags.begin(), tags.end());
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.second.sequence < b.second.sequence; });
  for (const auto& [tag, ref] : ordered) PrintRef(session, branch, tag, ref.manifest);
  return {};
}

Status MakeTag(Session& session, Library& library, const std::string& text, const std::string& name, bool force) {
  const auto snapshot = library.snapshot();
  ASSIGN_OR_RETURN(const Version version, ResolveVersion(*snapshot, text));
  // NAME alone is a tag of the branch the version was named by, or made on.
  RefName ref;
  if (name.find('/') != std::string::npos) {
    ASSIGN_OR_RETURN(ref, ParseTagReference(name));
  } else {
    TRY(CheckTagName(name));
    ref = {version.branch.empty() ? version.manifest.branch : version.branch, name};
  }
  ASSIGN_OR_RETURN(const auto head, snapshot->Branch(ref.branch));
  if (!head) return Fail(ENOENT, "{}: no such branch; name the tag as BRANCH/TAG", ref.branch);
  const std::string full = ref.branch + "/" + ref.tag;
  ASSIGN_OR_RETURN(const auto existing, snapshot->Tag(ref.branch, ref.tag));
  if (existing && !force) {
    return Fail(EEXIST, "{}: tag taken, by @{}; choose another name, or -f to move it", full,
                ShortId(existing->manifest));
  }
  if (!existing || existing->manifest != version.id) {
    const ObjectId from = existing ? existing->manifest : ObjectId();
    const auto check = [&](const Snapshot& newest) -> Status {
      if (!existing) TRY(CheckNumberIsNew(newest, ref.branch, ref.tag));
      return CheckHeadKeepsTag(newest, ref.branch, ref.tag, version.id);
    };
    TRY(library.MoveRefs("tag", {{full, from, version.id}}, check));
  }
  PrintRef(session, ref.branch, ref.tag, version.id);
  return {};
}

Status DeleteTag(Session& session, Library& library, const std::string& text) {
  ASSIGN_OR_RETURN(const RefName ref, ParseTagReference(text));
  const auto snapshot = library.snapshot();
  ASSIGN_OR_RETURN(const auto existing, snapshot->Tag(ref.branch, ref.tag));
  if (!existing) return Fail(ENOENT, "{}: no such tag; `mirage tag {}` lists them", text, ref.branch);
  TRY(library.MoveRefs("tag-delete", {{text, existing->manifest, {}}},
                       [&](const Snapshot& newest) { return CheckHeadKeepsTag(newest, ref.branch, ref.tag, {}); }));
  session.Say(fmt::format("deleted tag {} (was @{})", text, ShortId(existing->manifest)));
  if (session.json) {
    Json json;
    json["deleted"] = text;
    json["id"] = existing->manifest.Hex();
    session.out->Object(json);
  }
  return {};
}

}  // namespace

Action DeclareTag(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positionals("[BRANCH] | V NAME", arguments->words,
                      "list a branch's tags, or all; or the version and its new name", 0, 2);
  options.Flag("-f,--force", arguments->force, "move the tag if it exists (the ref log keeps where it was)");
  options.Flag("-d,--delete", arguments->remove, "delete BRANCH/TAG");
  return [arguments](Session& session) -> Result<int> {
    const std::vector<std::string>& words = arguments->words;
    if (arguments->remove && words.size() != 1) return UsageError("-d takes one BRANCH/TAG");
    if (arguments->force && words.size() != 2) return UsageError("-f goes with V NAME");
    ASSIGN_OR_RETURN(const auto library, session.Open());
    if (arguments->remove) {
      TRY(DeleteTag(session, *library, words[0]));
    } else if (words.size() == 2) {
      TRY(MakeTag(session, *library, words[0], words[1], arguments->force));
    } else {
      const auto snapshot = library->snapshot();
      ASSIGN_OR_RETURN(const auto branches, snapshot->Branches());
      if (words.size() == 1 && !branches.contains(words[0])) {
        return Fail(ENOENT, "{}: no such branch; to make a tag give a version and a name", words[0]);
      }
      for (const auto& [branch, head] : branches) {
        if (words.empty() || words[0] == branch) TRY(ListTags(session, *snapshot, branch));
      }
    }
    return kExitDone;
  };
}

}  // namespace mirage
