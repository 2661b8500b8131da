#include "tools/mirfs_process.h"
#include "tools/verbs.h"

namespace mirage {

Action DeclareMount(Options& options) {
  struct Arguments {
    std::string mountpoint, branch, message, tag, author, raw_options;
    bool foreground = false, detached = false;
  };
  auto arguments = std::make_shared<Arguments>();
  options.Positional("MOUNTPOINT", arguments->mountpoint, "an existing directory", true);
  options.Value("--edit", arguments->branch, "mount this branch for editing; unmounting commits");
  options.Value("-m,--message", arguments->message, "with --edit: the message of the version to come");
  options.Value("--tag", arguments->tag, "with --edit: its tag; else the next vN");
  options.Value("--author", arguments->author, "with --edit: its author; else who unmounts");
  options.Flag("--detach", arguments->detached, "with --edit: unmounting keeps an overlay; `mirage overlay commit` commits");
  options.Value("-o,--options", arguments->raw_options,
                "options as for mount(8), separated by commas: allow_other,cache=BYTES,...");
  options.Flag("-f,--foreground", arguments->foreground, "stay in the foreground");
  return [arguments](Session& session) -> Result<int> {
    const Arguments& given = *arguments;
    if (given.branch.empty() && (!given.message.empty() || !given.tag.empty() || !given.author.empty() || given.detached))
      return UsageError("-m, --tag, --author and --detach go with --edit");
    std::vector<std::string> mount_options;
    {
      // What can be told wrong at once is, in this program's words; the daemon opens the library for itself.
      ASSIGN_OR_RETURN(const auto library, session.Open());
      session.library_path = library->path();
      if (!given.branch.empty()) {
        TRY(CheckBranchName(given.branch));
        ASSIGN_OR_RETURN(const auto head, library->snapshot()->Branch(given.branch));
        if (!head) return Fail(ENOENT, "--edit {}: no such branch; `mirage branch` lists them", given.branch);
        mount_options.push_back("edit=" + given.branch);
        if (given.detached) mount_options.push_back("detach");
      }
      if (!given.tag.empty()) {
        TRY(CheckTagName(given.tag));
        ASSIGN_OR_RETURN(const auto taken, library->snapshot()->Tag(given.branch, given.tag));
        if (taken) return Fail(EEXIST, "--tag {}: {}/{} is taken; choose another", given.tag, given.branch, given.tag);
        mount_options.push_back("tag=" + given.tag);
      }
      if (!given.message.empty()) mount_options.push_back("message=" + given.message);
      if (!given.author.empty()) mount_options.push_back("author=" + given.author);
    }
    ASSIGN_OR_RETURN(const std::string mountpoint, CheckMountpoint(given.mountpoint));
    TRY(StartMirfs(session, mountpoint, mount_options, given.raw_options, given.foreground));
    PrintMounted(session, mountpoint, given.branch);
    return kExitDone;
  };
}

}  // namespace mirage
