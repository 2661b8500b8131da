#include "store/gc.h"

#include "tools/verbs.h"

namespace mirage {
namespace {

struct Arguments {
  std::string branch;
  RetentionRule keep;
  bool dry_run = false, compact = false, no_retention = false;
  uint64_t level = 0, wait_ms = 5000;
};

std::string Count(uint64_t n, std::string_view what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); }

void PrintReport(Session& session, const Arguments& arguments, const GcReport& report) {
  if (session.json) {
    Json json;
    json["dry_run"] = arguments.dry_run;
    json["tags_deleted"] = report.tags_deleted;
    json["versions_kept"] = report.versions_kept;
    json["live_objects"] = report.live_objects;
    json["live_chunks"] = report.live_chunks;
    json["dead_objects"] = report.dead_objects;
    json["dead_chunks"] = report.dead_chunks;
    json["packs_condemned"] = report.packs_condemned;
    json["condemned_bytes"] = report.condemned_bytes;
    json["packs_deleted"] = report.packs_deleted;
    json["freed_bytes"] = report.freed_bytes;
    json["packs_waiting"] = report.packs_waiting;
    json["waiting_bytes"] = report.waiting_bytes;
    json["waited_for"] = report.waited_for;
    json["packs_rewritten"] = report.packs_rewritten;
    json["rewritten_bytes"] = report.rewritten_bytes;
    json["written_bytes"] = report.written_bytes;
    json["skipped"] = report.skipped;
    session.out->Object(json);
    return;
  }
  Output& out = *session.out;
  const char* would = arguments.dry_run ? "would be " : "";
  for (const std::string& tag : report.tags_deleted) out.Line(fmt::format("tag {} {}deleted", tag, would));
  out.Line(fmt::format("{} in use: {}, {}", Count(report.versions_kept, "version"), Count(report.live_objects, "object"),
                       Count(report.live_chunks, "chunk")));
  out.Line(fmt::format("{}removed: {}, {}", would, Count(report.dead_objects, "object"), Count(report.dead_chunks, "chunk")));
  out.Line(fmt::format("{}freed: {} in {}", would, FormatSize(report.freed_bytes), Count(report.packs_deleted, "pack")));
  if (report.packs_rewritten > 0) {
    out.Line(fmt::format("{}rewritten: {} in {}{}", would, FormatSize(report.rewritten_bytes),
                         Count(report.packs_rewritten, "pack"),
                         arguments.dry_run ? "" : fmt::format(", as {}", FormatSize(report.written_bytes))));
  }
  if (report.packs_waiting > 0) {
    out.Line(fmt::format("left for the next gc: {} in {}, which may still be read by", FormatSize(report.waiting_bytes),
                         Count(report.packs_waiting, "pack")));
    for (const std::string& words : report.waited_for) out.Line("  process " + out.Fit(words));
  }
  for (const std::string& sentence : report.skipped) {
    session.Say(fmt::format("kept as it is: {}", sentence));
  }
  if (!arguments.compact && report.dead_chunks > 0 && report.packs_deleted + report.packs_waiting == 0) {
    session.Say("what was removed lies in packs that are still partly in use; `mirage gc --compact` gives its room back");
  }
}

}  // namespace

Action DeclareGc(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positional("BRANCH", arguments->branch, "whose tags the --keep options delete; else all branches'", false);
  options.Flag("-n,--dry-run", arguments->dry_run, "change nothing, say what would be");
  options.Flag("--compact", arguments->compact, "rewrite packs that are half dead, small, or not yet packed as tightly as can be");
  options.Value("--level", arguments->level, "with --compact: zstd, 1 to 19; else mirage.yaml's compact_level");
  options.Value("--keep-last", arguments->keep.last, "delete tags: keep the N newest versions");
  options.Value("--keep-daily", arguments->keep.daily, "... the newest of each of the N newest days with any");
  options.Value("--keep-weekly", arguments->keep.weekly, "... of each of N weeks");
  options.Value("--keep-monthly", arguments->keep.monthly, "... of each of N months");
  options.Values("--keep-tag", arguments->keep.tags, "... and what has a tag like GLOB");
  options.Flag("--no-retention", arguments->no_retention, "delete no tags, whatever mirage.yaml says");
  options.Value("--wait-ms", arguments->wait_ms, "wait so long for processes that may still read what is to be deleted");
  return [arguments](Session& session) -> Result<int> {
    const Arguments& given = *arguments;
    if (!given.branch.empty() && given.keep.empty()) {
      return UsageError("a branch goes with --keep-last, --keep-daily, --keep-weekly, --keep-monthly or --keep-tag");
    }
    if (given.no_retention && !given.keep.empty()) return UsageError("--no-retention and --keep do not go together");
    if (given.level > 19 || (given.level > 0 && !given.compact)) return UsageError("--level is from 1 to 19, and goes with --compact");
    if (given.wait_ms > 86'400'000) return UsageError("--wait-ms: a day is the most");

    const auto collect = [&]() -> Result<GcReport> {
      ASSIGN_OR_RETURN(const auto library, session.Open());
      GcOptions gc;
      gc.dry_run = given.dry_run;
      gc.branch = given.branch;
      gc.compact = given.compact;
      gc.compact_level = static_cast<int>(given.level);
      if (!given.no_retention) gc.retention = given.keep.empty() ? library->policy().retention : given.keep;
      gc.wait_ms = static_cast<int>(given.wait_ms);
      gc.say = [&](std::string_view line) { session.Say(line); };
      return CollectGarbage(*library, gc);
    };
    Env& env = Env::Default();
    auto report = collect();
    if (!report && report.error().code == ENOSPC) {
      ASSIGN_OR_RETURN(const bool released, ReleaseReserve(env, session.library_path));
      if (released) {
        session.Say("the disk is full: the library's reserve is released");
        report = collect();
      }
    }
    if (!report) return tl::make_unexpected(std::move(report).error());
    PrintReport(session, given, *report);
    if (!given.dry_run) {
      if (auto made = MakeReserve(env, session.library_path); !made) {
        session.Say(fmt::format("the reserve for a full disk could not be made again: {}", made.error().message));
      }
    }
    return kExitDone;
  };
}

}  // namespace mirage
