#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "indexer/importer.h"
#include "indexer/recipe.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

const std::string kNotGiven(1, '\0');

std::string Summary(const ImportReport& report) {
  std::string text = fmt::format("{} files, {}; {} new to the library; {:.1f} s", report.files,
                                 FormatSize(report.bytes), FormatSize(report.new_bytes), report.seconds);
  if (report.unchanged_files > 0) text += fmt::format("; {} unchanged, not read again", report.unchanged_files);
  if (report.known_files > 0) text += fmt::format("; {} read and found unchanged", report.known_files);
  if (report.appliance_seconds > 0 && report.seconds > 0) {
    text += fmt::format(", of which {:.1f} s ({:.0f} %) to start the appliance, {:.1f} s to inspect the disk",
                        report.appliance_seconds, 100 * report.appliance_seconds / report.seconds,
                        report.inspection_seconds);
  }
  return text;
}

void PrintReport(Session& session, const ImportReport& report) {
  for (const std::string& omission : report.omissions) session.Say(fmt::format("omitted: {}", omission));
  for (const Disk& disk : report.disks) {
    if (!disk.skeleton.IsZero()) continue;
    session.Say(fmt::format("disk: not kept ({}, {}): its files are, its layout and boot code are not", disk.name,
                            FormatSize(disk.size_bytes)));
  }
  if (report.restored_bytes > 0) {
    session.Say(fmt::format("the library had lost {} of this version, and has it again", FormatSize(report.restored_bytes)));
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
    json["unchanged_files"] = report.unchanged_files;
    json["known_files"] = report.known_files;
    json["new_bytes"] = report.new_bytes;
    json["restored_bytes"] = report.restored_bytes;
    json["seconds"] = report.seconds;
    json["appliance_seconds"] = report.appliance_seconds;
    json["inspection_seconds"] = report.inspection_seconds;
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
}

// Everything of a run that is not the recipe's.
void Prepare(Session& session, ImportOptions& options) {
  options.interrupted = &g_interrupted;
  options.progress_bar = !session.quiet && isatty(STDERR_FILENO);
  if (!session.quiet) options.say = [&session](std::string_view line) { session.Say(line); };
}

// Each image for itself: what fails is told, and the others go on.
Result<int> RunRecipe(Session& session, const std::string& file) {
  ASSIGN_OR_RETURN(const std::string yaml, ReadWholeFile(Env::Default(), file, kMaxRecipeBytes));
  const std::string directory = std::filesystem::path(file).parent_path().string();
  ASSIGN_OR_RETURN(auto entries, ParseRecipe(yaml, file, directory.empty() ? "." : directory));
  ASSIGN_OR_RETURN(const auto library, session.Open());
  size_t imported = 0, unchanged = 0, done = 0;
  std::vector<std::string> failed;
  for (RecipeEntry& entry : entries) {
    Prepare(session, entry.options);
    const std::string name =
        entry.options.tag.empty() ? entry.options.branch : entry.options.branch + "/" + entry.options.tag;
    TRY(library->Refresh());
    Status status;
    if (const auto is_done = IsDone(*library->snapshot(), entry.options); !is_done) {
      status = tl::make_unexpected(is_done.error());
    } else if (*is_done) {
      ++done;
      session.Say(fmt::format("{}: done before", name));
    } else {
      session.Say(fmt::format("{}: importing {}", name, entry.options.source));
      const auto report = Import(*library, entry.options);
      if (report) {
        PrintReport(session, *report);
        ++(report->changed ? imported : unchanged);
      } else {
        status = tl::make_unexpected(report.error());
      }
    }
    if (status) continue;
    if (status.error().code == EINTR) return tl::make_unexpected(status.error());
    failed.push_back(fmt::format("{} (line {}): {}", name, entry.line, status.error().message));
    session.Say("failed: " + failed.back());
  }
  session.Say(fmt::format("{} of {} images: {} imported, {} without changes, {} done before, {} failed",
                          entries.size() - failed.size(), entries.size(), imported, unchanged, done, failed.size()));
  if (failed.empty()) return kExitDone;
  return Fail(EIO, "{} of {} images failed, the first: {}", failed.size(), entries.size(), failed.front());
}

}  // namespace

Action DeclareImport(Options& options) {
  struct Arguments {
    // Not given: told from empty, which is a bad name.
    std::string source = kNotGiven, name, recipe;
    std::vector<std::string> names, disks;  // names: BRANCH[/TAG], if SOURCE is not that
    ImportOptions import;
  };
  auto arguments = std::make_shared<Arguments>();
  ImportOptions& import = arguments->import;
  options.Positional("SOURCE", arguments->source,
                     "a disk image (raw, qcow2, ..., OVA), a directory, a tar archive (-: from standard input) or a "
                     "container image (OCI layout, docker-save archive); not with -a",
                     false);
  options.Positionals("BRANCH[/TAG]", arguments->names, "a branch, made if there is none; no tag: the next vN", 0, 1);
  options.Values("-a,--add", arguments->disks,
                 "a disk of one machine, instead of SOURCE (repeated: its disks, in order)");
  options.Value("--recipe", arguments->recipe, "import what this YAML file lists (examples/recipe.yaml); go on where it ended");
  options.Value("-m,--message", import.message, "what this version is");
  options.Value("--parent", import.parent, "the version it follows; else the branch's head");
  options.Value("--format", import.format, "raw, qcow2, tar, oci, docker or directory; else it is detected");
  options.Value("--reader", import.reader,
                "of a disk: direct (raw ext2/3/4, FAT; no appliance), guestfs, or auto: direct where it can");
  options.Values("--exclude", import.exclude,
                 "leave out paths that match, as fnmatch(3): '/var/cache/*' (may be repeated)");
  options.Flag("--paranoid", import.paranoid, "read every file again, whatever size, times and inode number say");
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
    // Buffers of whole files come and go by the thousand. Given back to the kernel and faulted in again they were 50,000
    // page faults and 5 to 8 % of the CPU time of importing a version that changed little; the queue bounds them anyway.
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    if (!arguments->recipe.empty()) {
      const bool more = arguments->source != kNotGiven || !arguments->disks.empty() || !wanted.message.empty() ||
                        !wanted.parent.empty() || !wanted.format.empty() || !wanted.exclude.empty() || wanted.paranoid ||
                        wanted.layers || !wanted.image.empty() || !wanted.platform.empty() || !wanted.keys.empty() ||
                        wanted.skip_unreadable || wanted.allow_empty || wanted.reader != "auto";
      if (more) return UsageError("--recipe stands alone: what it imports and how is said in the file");
      return RunRecipe(session, arguments->recipe);
    }
    if (arguments->source == kNotGiven || arguments->names.empty() == arguments->disks.empty()) {
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
    Prepare(session, wanted);
    ASSIGN_OR_RETURN(const auto library, session.Open());
    ASSIGN_OR_RETURN(const ImportReport report, Import(*library, wanted));
    PrintReport(session, report);
    return kExitDone;
  };
}

}  // namespace mirage
