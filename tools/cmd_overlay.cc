#include "mirfs/committer.h"
#include "mirfs/overlay.h"
#include "tools/mirfs_process.h"
#include "tools/overlay_view.h"
#include "tools/refs_report.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

struct Arguments {
  std::string action, id, mountpoint, raw_options;
  bool foreground = false;
  std::string favor;
  ChangePrinter::Options print;
  CommitOptions commit;
};

// "active" of one that nobody holds is what a crash left.
std::string StateName(const OverlayInfo& overlay) {
  return overlay.mounted ? "mounted" : OverlayStateName(overlay.state);
}

Result<int> ListAll(Session& session, Library& library) {
  ASSIGN_OR_RETURN(const auto overlays, ListOverlays(library));
  for (const OverlayInfo& overlay : overlays) {
    if (session.json) {
      Json json;
      json["id"] = overlay.id;
      json["branch"] = overlay.branch;
      json["base"] = overlay.base.Hex();
      json["base_tag"] = overlay.base_tag;
      json["state"] = StateName(overlay);
      AddText(json, "mountpoint", overlay.mountpoint);
      AddText(json, "message", overlay.message);
      json["tag"] = overlay.tag;
      AddText(json, "author", overlay.author);
      json["created"] = FormatTime(overlay.created, 0);
      if (overlay.detached) json["detached"] = true;
      if (!overlay.error.empty()) AddText(json, "error", overlay.error);
      for (const std::string& conflict : overlay.conflicts) {
        Json one;
        AddText(one, "conflict", conflict);
        json["conflicts"].push_back(std::move(one));
      }
      session.out->Object(json);
      continue;
    }
    session.out->PathLine(fmt::format("{} {}/{} {} {} ", overlay.id, overlay.branch, overlay.base_tag,
                                      StateName(overlay), FormatTime(overlay.created, 0)),
                          overlay.mountpoint, overlay.error.empty() ? "" : ": " + session.out->Fit(overlay.error));
    for (const std::string& conflict : overlay.conflicts) session.out->Line(session.out->Fit("  conflict " + conflict));
  }
  return kExitDone;
}

Status RefuseMounted(const OverlayInfo& overlay) {
  if (!overlay.mounted) return {};
  return Fail(EBUSY, "{}: mounted on {}; `mirage umount {}` ends it", overlay.id, overlay.mountpoint,
              overlay.mountpoint);
}

Result<int> Run(Session& session, Arguments& given) {
  const bool resume = given.action == "resume", commit = given.action == "commit", diff = given.action == "diff";
  if ((given.action == "list") != given.id.empty()) {
    return UsageError(given.id.empty() ? given.action + " needs an overlay's ID" : "list takes nothing");
  }
  if (resume == given.mountpoint.empty()) {
    return UsageError(resume ? "resume needs a mount point" : given.mountpoint + ": only resume takes a mount point");
  }
  if (!resume && (given.foreground || !given.raw_options.empty())) return UsageError("-f and -o go with resume");
  if (!commit && (!given.commit.to_branch.empty() || !given.commit.message.empty() || !given.commit.tag.empty() ||
                  !given.commit.author.empty())) {
    return UsageError("--to, -m, --tag and --author go with commit");
  }
  if (!diff && given.print.statistics) return UsageError("--stat goes with diff");
  if (!given.favor.empty()) {
    if (!commit) return UsageError("--favor goes with commit");
    if (given.favor != "head" && given.favor != "overlay") return UsageError("--favor " + given.favor + ": head or overlay");
    given.commit.favor = given.favor == "head" ? MergeFavor::kOurs : MergeFavor::kTheirs;
  }
  if (!given.commit.to_branch.empty()) TRY(CheckBranchName(given.commit.to_branch));
  if (!given.commit.tag.empty()) TRY(CheckTagName(given.commit.tag));
  ASSIGN_OR_RETURN(const auto library, session.Open());
  if (given.action == "list") return ListAll(session, *library);
  ASSIGN_OR_RETURN(const OverlayInfo overlay, FindOverlay(*library, given.id));
  if (diff) {
    ASSIGN_OR_RETURN(const auto seen, LookAtOverlay(*library, overlay.id));
    TRY(PrintOverlayChanges(session, library, *seen, nullptr, {""}, given.print));
    return kExitDone;
  }
  TRY(RefuseMounted(overlay));
  if (resume) {
    ASSIGN_OR_RETURN(const std::string mountpoint, CheckMountpoint(given.mountpoint));
    session.library_path = library->path();
    TRY(StartMirfs(session, mountpoint, {"resume=" + overlay.id}, given.raw_options, given.foreground));
    PrintMounted(session, mountpoint, overlay.branch);
    return kExitDone;
  }
  if (commit) {
    given.commit.say = [&session](std::string_view line) { session.Say(line); };
    ExcludedPaths excluded;
    ASSIGN_OR_RETURN(const auto version, CommitOverlay(*library, overlay.id, given.commit, &excluded));
    PrintCommit(session, version, excluded);
    return kExitDone;
  }
  TRY(DiscardOverlay(*library, overlay.id));
  session.Say(fmt::format("discarded overlay {} of {}", overlay.id, overlay.branch));
  if (session.json) {
    Json json;
    json["discarded"] = overlay.id;
    session.out->Object(json);
  }
  return kExitDone;
}

}  // namespace

Action DeclareOverlay(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Choice("list|diff|resume|commit|discard", arguments->action, {"list", "diff", "resume", "commit", "discard"},
                 "what to do");
  options.Positional("ID", arguments->id, "the overlay, or the beginning of its id", false);
  options.Positional("MOUNTPOINT", arguments->mountpoint, "resume: where to mount it again", false);
  options.Value("--to", arguments->commit.to_branch, "commit: to this branch; a new one if its own has moved on");
  options.Value("--favor", arguments->favor, "commit: head or overlay, the side to take where they conflict");
  options.Flag("--stat", arguments->print.statistics, "diff: sizes before and after, and a sum at the end");
  options.Value("-m,--message", arguments->commit.message, "commit: the message of the version");
  options.Value("--tag", arguments->commit.tag, "commit: its tag; else the next vN");
  options.Value("--author", arguments->commit.author, "commit: its author; else as at the mount, else you");
  options.Value("-o,--options", arguments->raw_options, "resume: options as for `mirage mount`");
  options.Flag("-f,--foreground", arguments->foreground, "resume: stay in the foreground");
  return [arguments](Session& session) { return Run(session, *arguments); };
}

}  // namespace mirage
