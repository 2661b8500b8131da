#include "mirfs/control.h"
#include "tools/refs_report.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

struct Arguments {
  std::string mountpoint;
  UnmountRequest request;
};

void PrintUnmounted(Session& session, const FoundMount& mount, bool discarded) {
  if (session.json) {
    Json json;
    AddText(json, "unmounted", mount.mountpoint);
    if (discarded) json["discarded"] = true;
    session.out->Object(json);
  } else {
    session.Say(fmt::format("unmounted {}{}", mount.mountpoint, discarded ? ", changes discarded" : ""));
  }
}

Result<int> UnmountReadOnly(Session& session, const Arguments& arguments, const FoundMount& mount) {
  const UnmountRequest& request = arguments.request;
  if (!request.message.empty() || !request.tag.empty() || !request.author.empty() || request.discard || request.commit) {
    return UsageError(fmt::format("{}: a read-only mount; -m, --tag, --author, --commit and --discard go with an edit mount",
                                  arguments.mountpoint));
  }
  if (auto status = Unmount(mount.mountpoint, false); !status) {
    if (status.error().code != EBUSY) return tl::make_unexpected(status.error());
    const std::string users = DescribeUsers(mount.mountpoint);
    return Fail(EBUSY, "{}: busy{}{}; end or leave it there and try again", mount.mountpoint,
                users.empty() ? "" : ": used by ", users);
  }
  PrintUnmounted(session, mount, false);
  return kExitDone;
}

Result<int> UnmountEdit(Session& session, const Arguments& arguments, const FoundMount& mount) {
  if (!arguments.request.tag.empty()) TRY(CheckTagName(arguments.request.tag));
  auto ended = ControlUnmount(mount.library, mount.overlay_id, arguments.request);
  if (!ended && (ended.error().code == ENOENT || ended.error().code == ECONNREFUSED)) {
    // Killed: nothing is lost that was synced, but nothing is committed that nobody asked for.
    if (auto unmounted = Unmount(mount.mountpoint, true); !unmounted) {
      return Fail(unmounted.error().code, "{}; its daemon is dead, the edit is kept: `mirage overlay commit {}`",
                  unmounted.error().message, mount.overlay_id);
    }
    return Fail(EPIPE,
                "{}: its daemon is dead; unmounted, the edit is kept: `mirage overlay commit {}`, or resume or discard",
                mount.mountpoint, mount.overlay_id);
  }
  if (!ended) return tl::make_unexpected(std::move(ended).error());
  if (ended->discarded) {
    PrintUnmounted(session, mount, true);
  } else if (ended->kept && session.json) {
    Json json;
    json["overlay"] = mount.overlay_id;
    session.out->Object(json);
  } else if (ended->kept) {
    session.out->Line("overlay " + mount.overlay_id);
    session.Say(fmt::format("kept; `mirage overlay commit {}` makes a version of it", mount.overlay_id));
  } else {
    PrintCommit(session, ended->version, ended->excluded);
  }
  return kExitDone;
}

}  // namespace

Action DeclareUmount(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positional("MOUNTPOINT", arguments->mountpoint, "where a library or a branch is mounted", true);
  options.Value("-m,--message", arguments->request.message, "the message of the version");
  options.Value("--tag", arguments->request.tag, "its tag; else the next vN");
  options.Value("--author", arguments->request.author, "its author; else as at the mount, else you");
  options.Flag("--discard", arguments->request.discard, "throw the changes away");
  options.Flag("--commit", arguments->request.commit, "commit, even if it was mounted with --detach");
  return [arguments](Session& session) -> Result<int> {
    const UnmountRequest& request = arguments->request;
    if (request.discard && request.commit) return UsageError("--discard and --commit exclude each other");
    if (request.discard && (!request.message.empty() || !request.tag.empty() || !request.author.empty())) {
      return UsageError("--discard makes no version to give a message, a tag or an author");
    }
    arguments->request.user = WhoAmI();
    ASSIGN_OR_RETURN(const auto mount, FindMount(arguments->mountpoint));
    if (!mount) {
      return Fail(EINVAL, "{}: no mount of a library there; `findmnt -t fuse.mirfs` lists them", arguments->mountpoint);
    }
    return mount->overlay_id.empty() ? UnmountReadOnly(session, *arguments, *mount)
                                     : UnmountEdit(session, *arguments, *mount);
  };
}

}  // namespace mirage
