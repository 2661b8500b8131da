#include "store/fsck.h"

#include <unistd.h>

#include "mirfs/overlay.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

constexpr int kExitRepaired = 1, kExitDamageLeft = 4;

const char* Word(FsckFinding::Kind kind) {
  switch (kind) {
    case FsckFinding::kDamage:
      return "damage";
    case FsckFinding::kNote:
      return "note";
    case FsckFinding::kRepair:
      return "repair";
    case FsckFinding::kLeft:
      return "left";
  }
  return "";
}

// On a terminal one line that is drawn over; elsewhere a line for each tenth of a stage.
class FsckTalk {
 public:
  FsckTalk(const Session& session) : session_(session), bar_(isatty(STDERR_FILENO)) {}

  void Progress(std::string_view stage, uint64_t done, uint64_t total) {
    if (session_.quiet) return;
    const uint64_t percent = total == 0 ? 100 : done * 100 / total;
    const uint64_t step = bar_ ? percent : percent / 10;
    if (stage == stage_ && step == step_) return;
    const bool first = stage != stage_;
    stage_ = stage;
    step_ = step;
    if (bar_) {
      std::fputs(
          fmt::format("\r\033[Kchecking {}: {} of {} ({} %)", stage, FormatSize(done), FormatSize(total), percent)
              .c_str(),
          stderr);
      drawn_ = true;
    } else if (!first && total >= kTalkBytes) {
      session_.Say(fmt::format("checking {}: {} %", stage, percent));
    }
  }
  void Clear() {
    if (drawn_) std::fputs("\r\033[K", stderr);
    drawn_ = false;
    step_ = ~uint64_t{0};
  }
  void Print(const FsckFinding& finding) {
    Clear();
    if (session_.json) {
      Json json;
      AddText(json, Word(finding.kind), finding.what);
      if (!finding.version.empty()) json["version"] = finding.version;
      if (!finding.path.empty()) AddText(json, "path", finding.path);
      session_.out->Object(json);
      return;
    }
    std::string where;
    if (!finding.version.empty()) {
      where = fmt::format(" ({}{}{})", finding.version, finding.path.empty() ? "" : ":", finding.path);
    }
    session_.out->Line(fmt::format("{}: {}", Word(finding.kind), session_.out->Fit(finding.what + where)));
  }

 private:
  static constexpr uint64_t kTalkBytes = 256 << 20;  // less is checked before anyone wonders
  const Session& session_;
  const bool bar_;
  bool drawn_ = false;
  std::string stage_;
  uint64_t step_ = ~uint64_t{0};
};

}  // namespace

Action DeclareFsck(Options& options) {
  const auto repair = std::make_shared<bool>(false);
  options.Flag("--repair", *repair, "mend what can be mended; what is replaced goes to quarantine/ in the library");
  return [repair](Session& session) -> Result<int> {
    FsckOptions how;
    how.repair = *repair;
    FsckTalk talk(session);
    ASSIGN_OR_RETURN(
        FsckReport report,
        Fsck(
            session.library_path, how, [&](const FsckFinding& finding) { talk.Print(finding); },
            [&](std::string_view stage, uint64_t done, uint64_t total) { talk.Progress(stage, done, total); }));
    // Edits in progress are beside the library proper: of them it is seen whether their records can be read. A file's
    // bytes get checksums when they are committed.
    if (const auto library = session.Open()) {
      ASSIGN_OR_RETURN(const auto overlays, ListOverlays(**library));
      for (const OverlayInfo& overlay : overlays) {
        if (!overlay.branch.empty()) continue;
        ++report.damaged;
        talk.Print({overlay.error, {}, {}, report.repaired > 0 ? FsckFinding::kLeft : FsckFinding::kDamage});
      }
    }
    talk.Clear();
    if (session.json) {
      Json json;
      json["damaged"] = report.damaged;
      json["repaired"] = report.repaired;
      json["versions"] = report.versions;
      json["records"] = report.records;
      json["packs"] = report.packs;
      json["blocks"] = report.blocks;
      json["objects"] = report.objects;
      json["chunks"] = report.chunks;
      json["contents"] = report.contents;
      session.out->Object(json);
    }
    std::string verdict = "clean";
    if (report.damaged > 0) {
      verdict = fmt::format("{} findings of damage{}", report.damaged,
                            *repair ? " are left" : "; fsck --repair mends what can be mended");
    } else if (report.repaired > 0) {
      verdict = "repaired";
    }
    session.Say(fmt::format("{}: {} versions, {} packs, {} blocks, {} objects, {} chunks, {} contents checked; {}",
                            session.library_path, report.versions, report.packs, report.blocks, report.objects,
                            report.chunks, report.contents, verdict));
    if (report.damaged > 0) return kExitDamageLeft;
    return report.repaired > 0 ? kExitRepaired : kExitDone;
  };
}

}  // namespace mirage
