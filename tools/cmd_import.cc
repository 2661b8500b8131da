#include <malloc.h>
#include <unistd.h>

#include <algorithm>

#include "indexer/importer.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

std::string Summary(const ImportReport& report) {
  std::string text = fmt::format("{} files, {}; {} new to the library; {:.1f} s", report.files,
                                 FormatSize(report.bytes), FormatSize(report.new_bytes), report.seconds);
  if (report.appliance_seconds > 0 && report.seconds > 0) {
    text += fmt::format(", of which {:.1f} s ({:.0f} %) to start the appliance", report.appliance_seconds,
                        100 * report.appliance_seconds / report.seconds);
  }
  return text;
}

}  // namespace

Action DeclareImport(Options& options) {
  struct Arguments {
    std::string source, name;
    std::vector<std::string> names, disks;  // names: BRANCH[/TAG], if SOURCE is not that
    ImportOptions import;
  };
  auto arguments = std::make_shared<Arguments>();
  ImportOptions& import = arguments->import;
  options.Positional("SOURCE", arguments->source,
                     "a disk image (raw, qcow2, ..., OVA), a directory, a tar archive (-: from standard input) or a "
                     "container image (OCI layout, docker-save archive); not with -a",
                     true);
  options.Positionals("BRANCH[/TAG]", arguments->names, "a branch, made if there is none; no tag: the next vN", 0, 1);
  options.Values("-a,--add", arguments->disks,
                 "a disk of one machine, instead of SOURCE (repeated: its disks, in order)");
  options.Value("-m,--message", import.message, "what this version is");
  options.Value("--parent", import.parent, "the version it follows; else the branch's head");
  options.Value("--format", import.format, "raw, qcow2, tar, oci, docker or directory; else it is detected");
  options.Value("--reader", import.reader,
                "of a disk: direct (raw ext2/3/4, without the appliance), guestfs, or auto: direct where it can");
  options.Values("--exclude", import.exclude,
                 "leave out paths that match, as fnmatch(3): '/var/cache/*' (may be repeated)");
  options.Value("--image", import.image, "of several container images in one archive: a tag or a digest");
  options.Value("--platform", import.platform, "of a container image: OS/ARCH[/VARIANT]; else this machine's");
  options.Flag("--layers", import.layers, "of a container image: a version for each layer; the tag is the last one's");
  options.Values("--key", import.keys,
                 "to an encrypted disk: ID:key:KEY or ID:file:FILENAME; ID: a device, a UUID or all (may be repeated)");
  options.Flag("--skip-unreadable", import.skip_unreadable,
               "of a disk: leave out a filesystem that cannot be read; every report on the version says so");
  options.Flag("--allow-empty", import.allow_empty, "make a version even if nothing changed");
  return [arguments](Session& session) -> Result<int> {
    ImportOptions& wanted = arguments->import;
    if (arguments->names.empty() == arguments->disks.empty()) {
      return UsageError("write import SOURCE BRANCH[/TAG], or import -a DISK [-a DISK...] BRANCH[/TAG]");
    }
    arguments->name = arguments->names.empty() ? arguments->source : arguments->names.front();
    wanted.source = arguments->disks.empty() ? arguments->source : arguments->disks.front();
    if (!arguments->disks.empty()) wanted.more_disks.assign(arguments->disks.begin() + 1, arguments->disks.end());
    const size_t slash = arguments->name.find('/');
    wanted.branch = arguments->name.substr(0, slash);
    TRY(CheckBranchName(wanted.branch));
    if (slash != std::string::npos) {
      wanted.tag = arguments->name.substr(slash + 1);
      TRY(CheckTagName(wanted.tag));
    }
    wanted.interrupted = &g_interrupted;
    wanted.progress_bar = !session.quiet && isatty(STDERR_FILENO);
    if (!session.quiet) wanted.say = [&session](std::string_view line) { session.Say(line); };
    ASSIGN_OR_RETURN(const auto library, session.Open());
    // Buffers of whole files come and go by the thousand. Given back to the kernel and faulted in again they were 50,000
    // page faults and 5 to 8 % of the CPU time of importing a version that changed little; the queue bounds them anyway.
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    ASSIGN_OR_RETURN(const ImportReport report, Import(*library, wanted));
    for (const std::string& omission : report.omissions) session.Say(fmt::format("omitted: {}", omission));
    for (const Disk& disk : report.disks) {
      if (!disk.skeleton.IsZero()) continue;
      session.Say(fmt::format("disk: not kept ({}, {}): its files are, its layout and boot code are not", disk.name,
                              FormatSize(disk.size_bytes)));
    }
    session.Say(Summary(report));
    if (session.json) {
      Json json;
      json["changed"] = report.changed;
      json["version"] = report.version.branch + "/" + report.version.tag;
      json["branch"] = report.version.branch;
      json["tag"] = report.version.tag;
      json["id"] = report.version.manifest.Hex();
      json["tree"] = report.tree.Hex();
      json["files"] = report.files;
      json["bytes"] = report.bytes;
      json["new_bytes"] = report.new_bytes;
      json["seconds"] = report.seconds;
      json["appliance_seconds"] = report.appliance_seconds;
      json["disks_kept"] = std::none_of(report.disks.begin(), report.disks.end(),
                                        [](const Disk& disk) { return disk.skeleton.IsZero(); });
      json["omissions"] = Json::array();
      for (const std::string& omission : report.omissions) json["omissions"].push_back(EscapeBytes(omission));
      for (const Published& layer : report.layers) json["layers"].push_back(layer.branch + "/" + layer.tag);
      session.out->Object(json);
    } else if (!report.layers.empty()) {
      for (const Published& layer : report.layers) {
        session.out->Line(fmt::format("{}/{} {}", layer.branch, layer.tag, layer.manifest.Hex()));
      }
    } else if (report.changed) {
      session.out->Line(
          fmt::format("{}/{} {}", report.version.branch, report.version.tag, report.version.manifest.Hex()));
    } else {
      session.out->Line("no changes");
    }
    return kExitDone;
  };
}

}  // namespace mirage
