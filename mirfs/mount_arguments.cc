#include "mirfs/mount_arguments.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace mirage {

const char kMountUsage[] =
    "usage: mirfs LIBRARY MOUNTPOINT [-f] [-o OPTION,...]\n"
    "       mount -t mirfs LIBRARY MOUNTPOINT [-o OPTION,...]\n"
    "  read-only: all versions, as MOUNTPOINT/BRANCH/TAG/...; or, with -o\n"
    "  branch=BRANCH    one branch, as MOUNTPOINT/TAG/...\n"
    "  version=VERSION  one version's tree: web, web/v1, web~2, @3f9c2a\n"
    "  uid=, gid=       all files are shown as this user's, this group's\n"
    "  writable:\n"
    "  edit=BRANCH      one branch: unmounting makes a version\n"
    "  resume=OVERLAY   go on with an overlay (`mirage overlay list`)\n"
    "  message=, tag=, author=  of that version\n"
    "  detach           unmounting makes none: `mirage overlay commit` does\n"
    "  nopassthrough    root's too: the kernel writes no file by itself, but caches what is written\n"
    "  either:\n"
    "  allow_other      other users too; the kernel checks modes\n"
    "  default_permissions  the kernel checks modes for the mount's user too\n"
    "  system           set-id programs and device nodes work (root only)\n"
    "  cache=SIZE       for decoded blocks: 256M\n"
    "  -f               stay in the foreground\n";

namespace {

// Splits at commas; a backslash keeps the character behind it.
std::vector<std::string> SplitOptions(std::string_view text) {
  std::vector<std::string> options(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      options.back().push_back(text[++i]);
    } else if (text[i] == ',') {
      options.emplace_back();
    } else {
      options.back().push_back(text[i]);
    }
  }
  std::erase(options, "");
  return options;
}

Result<size_t> ParseSize(const std::string& text) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long number = std::strtoull(text.c_str(), &end, 10);
  const std::string_view unit(end);
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (errno != 0 || end == text.c_str() || text[0] == '-' || shift < 0 || number > (SIZE_MAX >> shift)) {
    return Fail(EINVAL, "cache={}: not a size; write 256M", text);
  }
  return static_cast<size_t>(number) << shift;
}

}  // namespace

Result<uint32_t> ParseOwner(const std::string& key, const std::string& value) {
  uint32_t id = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), id);
  const bool nobodys = id == ~uint32_t{0};  // chown(2): leave it as it is
  if (error == std::errc() && end == value.data() + value.size() && !nobodys) return id;
  if (key == "uid") {
    if (const passwd* user = getpwnam(value.c_str())) return user->pw_uid;
    return Fail(EINVAL, "uid={}: neither a number nor a user of this machine", value);
  }
  if (const group* found = getgrnam(value.c_str())) return found->gr_gid;
  return Fail(EINVAL, "gid={}: neither a number nor a group of this machine", value);
}

namespace {

Status ApplyOption(const std::string& option, MountArguments* arguments) {
  // Words of fstab and mount(8) that say nothing to us. suid and dev are among them: mount.fuse3 adds them unasked, and
  // what an image holds must not gain power by being mounted; `system` is the way to ask.
  static constexpr const char* kIgnored[] = {"ro",    "rw",       "suid",   "dev",     "nosuid",  "nodev",
                                             "auto",  "noauto",   "user",   "users",   "nouser",  "owner",
                                             "group", "defaults", "nofail", "_netdev", "relatime"};
  static constexpr const char* kPassed[] = {"exec",       "noexec", "atime", "noatime",
                                            "nodiratime", "sync",   "async", "dirsync"};
  auto is = [&](const char* word) { return option == word; };
  const size_t equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const std::string value = equals == option.npos ? "" : option.substr(equals + 1);
  if (std::ranges::any_of(kIgnored, is) || option.starts_with("x-") || key == "comment") return {};
  if (std::ranges::any_of(kPassed, is)) {
    arguments->mount_options += (arguments->mount_options.empty() ? "" : ",") + option;
  } else if (option == "allow_other") {
    arguments->allow_other = arguments->default_permissions = true;
  } else if (option == "default_permissions") {
    arguments->default_permissions = true;
  } else if (option == "system") {
    arguments->system = true;
  } else if (option == "nopassthrough") {
    arguments->passthrough = false;
  } else if (option == "detach") {
    arguments->detached = true;
  } else if (option == "remount") {
    return Fail(EINVAL, "remount: not possible; unmount it and mount it again");
  } else if (equals == option.npos || value.empty()) {
    return Fail(EINVAL, "option {}: unknown, or without its value", option);
  } else if (key == "edit") {
    arguments->edit_branch = value;
  } else if (key == "resume") {
    arguments->resume_id = value;
  } else if (key == "branch") {
    arguments->branch = value;
  } else if (key == "version") {
    arguments->version = value;
  } else if (key == "message") {
    arguments->message = value;
  } else if (key == "tag") {
    arguments->tag = value;
  } else if (key == "author") {
    arguments->author = value;
  } else if (key == "uid") {
    ASSIGN_OR_RETURN(arguments->uid, ParseOwner(key, value));
  } else if (key == "gid") {
    ASSIGN_OR_RETURN(arguments->gid, ParseOwner(key, value));
  } else if (key == "cache") {
    ASSIGN_OR_RETURN(arguments->cache_bytes, ParseSize(value));
  } else {
    return Fail(EINVAL, "option {}: unknown", key);
  }
  return {};
}

// The words mount(8) gives a helper that mean nothing here: sloppy, no mtab, verbose, read-only, read-write.
bool IsHelperFlag(std::string_view word) { return word.find_first_not_of("snvrw", 1) == word.npos; }

Status CheckTogether(const MountArguments& arguments) {
  const bool edit = arguments.edit();
  if (!arguments.edit_branch.empty() && !arguments.resume_id.empty()) {
    return Fail(EINVAL, "edit= and resume= exclude each other");
  }
  if (!arguments.branch.empty() && !arguments.version.empty()) {
    return Fail(EINVAL, "branch= and version= exclude each other");
  }
  if (edit && (!arguments.branch.empty() || !arguments.version.empty() || arguments.uid || arguments.gid)) {
    return Fail(EINVAL, "branch=, version=, uid= and gid= go with read-only mounts");
  }
  if (arguments.edit_branch.empty() && (!arguments.message.empty() || !arguments.tag.empty() || !arguments.author.empty() ||
                                        arguments.detached)) {
    return Fail(EINVAL, "message=, tag=, author= and detach go with edit=");
  }
  if (arguments.system && geteuid() != 0) return Fail(EINVAL, "system: only for root");
  return {};
}

}  // namespace

Result<MountArguments> ParseMountArguments(int argc, const char* const* argv) {
  MountArguments arguments;
  std::vector<std::string> words;
  const std::string_view program(argc > 0 ? argv[0] : "");
  const bool helper = program.substr(program.rfind('/') + 1).starts_with("mount.");
  bool options_end = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (options_end || word == "-" || !word.starts_with('-')) {
      words.push_back(word);
    } else if (word == "--") {
      options_end = true;
    } else if (word == "-f") {
      (helper ? arguments.fake : arguments.foreground) = true;
    } else if (word.starts_with("-o")) {
      if (word == "-o" && i + 1 == argc) return Fail(EINVAL, "-o: no options behind it");
      for (const std::string& option : SplitOptions(word == "-o" ? argv[++i] : word.substr(2))) {
        TRY(ApplyOption(option, &arguments));
      }
    } else if (helper && word == "-t") {
      ++i;
    } else if (!helper || !IsHelperFlag(word)) {
      return Fail(EINVAL, "{}: unknown", word);
    }
  }
  if (words.size() != 2) return Fail(EINVAL, "LIBRARY and MOUNTPOINT are needed");
  TRY(CheckTogether(arguments));
  arguments.library = words[0];
  arguments.mountpoint = words[1];
  return arguments;
}

}  // namespace mirage
