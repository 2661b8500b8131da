#include "store/fsck.h"

#include <unistd.h>

#include "tools/verbs.h"

namespace mirage {

constexpr int kExitDamageLeft = 4;

Action DeclareFsck(Options&) {
  return [](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    const bool bar = !session.quiet && isatty(STDERR_FILENO);
    uint64_t drawn = ~uint64_t{0};
    const auto progress = [&](uint64_t done, uint64_t total) {
      const uint64_t percent = total == 0 ? 100 : done * 100 / total;
      if (!bar || percent == drawn) return;
      drawn = percent;
      std::fputs(fmt::format("\r\033[K{} of {} ({} %)", FormatSize(done), FormatSize(total), percent).c_str(), stderr);
    };
    const auto clear = [&] {
      if (bar && drawn != ~uint64_t{0}) std::fputs("\r\033[K", stderr);
      drawn = ~uint64_t{0};
    };
    const auto print = [&](const FsckFinding& finding) {
      clear();
      if (session.json) {
        Json json;
        AddText(json, "damage", finding.what);
        if (!finding.version.empty()) json["version"] = finding.version;
        if (!finding.path.empty()) AddText(json, "path", finding.path);
        session.out->Object(json);
        return;
      }
      std::string where;
      if (!finding.version.empty()) {
        where = fmt::format(" ({}{}{})", finding.version, finding.path.empty() ? "" : ":", finding.path);
      }
      session.out->Line("damage: " + session.out->Fit(finding.what + where));
    };
    ASSIGN_OR_RETURN(const FsckReport report, Fsck(*library, print, progress));
    clear();
    if (session.json) {
      Json json;
      json["damaged"] = report.damaged;
      json["versions"] = report.versions;
      json["records"] = report.records;
      json["packs"] = report.packs;
      json["blocks"] = report.blocks;
      json["objects"] = report.objects;
      json["chunks"] = report.chunks;
      json["contents"] = report.contents;
      session.out->Object(json);
    }
    session.Say(fmt::format("{}: {} versions, {} packs, {} blocks, {} objects, {} chunks, {} contents checked; {}",
                            library->path(), report.versions, report.packs, report.blocks, report.objects,
                            report.chunks, report.contents,
                            report.damaged == 0 ? "clean" : fmt::format("{} findings of damage", report.damaged)));
    return report.damaged == 0 ? kExitDone : kExitDamageLeft;
  };
}

}  // namespace mirage
