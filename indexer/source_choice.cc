#include "indexer/source_choice.h"

#include <sys/stat.h>

#include <fstream>
#include <utility>
#include <vector>

#include "indexer/direct_source.h"
#include "indexer/directory_source.h"
#include "indexer/disk_format.h"
#include "indexer/guest_keys.h"
#include "indexer/guestfs_source.h"
#include "indexer/ova.h"
#include "indexer/tar_source.h"

namespace mirage {
namespace {

// A raw disk for the direct reader; null: it is for the appliance, and `say` has told why.
Result<std::unique_ptr<ImageSource>> OpenDirectly(const ImportOptions& options, const std::string& path,
                                                  const std::string& format,
                                                  const std::function<void(std::string_view)>& say) {
  std::string why;
  if (format != "raw") {
    why = fmt::format("it is a {} image; the direct reader takes raw ones", format);
  } else {
    auto source = DirectSource::Open(path, options.interrupted);
    if (source && (options.reader == "direct" || (*source)->plan().doubts.empty())) {
      say("reading the disk directly, without the appliance");
      return std::move(*source);
    }
    if (!source && source.error().code == EINTR) return tl::make_unexpected(std::move(source).error());
    why = source ? (*source)->plan().doubts.front() : source.error().message;
  }
  if (options.reader == "direct") {
    const bool said = why.find("--reader guestfs") != why.npos;
    return Fail(EOPNOTSUPP, "{}{}", why, said ? "" : "; --reader guestfs reads it through the appliance");
  }
  say(fmt::format("reading the disk through the appliance ({})", why));
  return nullptr;
}

std::string FirstBytes(const std::string& path) {
  std::string bytes(512, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(file.gcount()));
  return bytes;
}

// The disks of one machine, in order.
Result<std::unique_ptr<ImageSource>> OpenDisks(const ImportOptions& options, const std::vector<std::string>& disks,
                                               const Exclusion& exclusion, const std::string& scratch,
                                               const std::function<void(std::string_view)>& say) {
  GuestfsSource::Options guest;
  ASSIGN_OR_RETURN(guest.keys, ParseGuestKeys(options.keys));
  for (const std::string& disk : disks) {
    auto format = DetectDiskFormat(disk, options.format, !guest.keys.empty());
    if (!format && disks.size() > 1) return Annotate(std::move(format).error(), disk);
    if (!format) return tl::make_unexpected(std::move(format).error());
    guest.drives.push_back({disk, std::move(*format)});
  }
  if (disks.size() > 1 && options.reader == "direct") {
    return Fail(EOPNOTSUPP, "several disks; --reader guestfs reads them through the appliance");
  }
  if (disks.size() == 1 && options.reader != "guestfs") {
    ASSIGN_OR_RETURN(auto source, OpenDirectly(options, disks.front(), guest.drives.front().format, say));
    if (source) return source;
  }
  guest.skip_unreadable = options.skip_unreadable;
  guest.scratch = scratch;
  guest.exclude = exclusion.patterns();
  guest.interrupted = options.interrupted;
  return std::make_unique<GuestfsSource>(std::move(guest));
}

}  // namespace

Result<std::shared_ptr<ContainerState>> OpenContainer(const ImportOptions& options, const std::string& scratch) {
  const bool asked = options.format == "oci" || options.format == "docker";
  if (!asked && !options.format.empty()) return nullptr;
  auto state = std::make_shared<ContainerState>(options.name_bytes);
  struct stat st{};
  if (options.source != "-" && stat(options.source.c_str(), &st) != 0) return FailErrno(errno, options.source);
  if (S_ISDIR(st.st_mode)) {
    auto files = ContainerFiles::OpenDirectory(options.source);
    if (!files && !asked) return nullptr;
    if (!files) return Fail(EINVAL, "it is no OCI image layout: {}", files.error().message);
    state->files = std::move(*files);
  } else {
    if (!asked && (!S_ISREG(st.st_mode) || !LooksLikeTar(FirstBytes(options.source)))) return nullptr;
    ContainerFiles::ArchiveOptions archive;
    archive.path = options.source;
    archive.scratch = scratch;
    archive.asked = asked;
    archive.name_bytes = options.name_bytes;
    archive.interrupted = options.interrupted;
    ASSIGN_OR_RETURN(state->files, ContainerFiles::OpenArchive(archive));
    if (!state->files) return nullptr;
  }
  ASSIGN_OR_RETURN(state->image,
                   ChooseContainerImage(*state->files, {options.format, options.image, options.platform}));
  return state;
}

Result<std::unique_ptr<ImageSource>> OpenSource(Library& library, const ImportOptions& options, LayerRun& run,
                                                const Exclusion& exclusion, const std::string& scratch,
                                                const std::function<void(std::string_view)>& say) {
  if (options.reader != "auto" && options.reader != "guestfs" && options.reader != "direct") {
    return Fail(EINVAL, "reader {} is not known; use auto, guestfs or direct", options.reader);
  }
  if (!options.more_disks.empty()) {
    std::vector<std::string> disks{options.source};
    disks.insert(disks.end(), options.more_disks.begin(), options.more_disks.end());
    return OpenDisks(options, disks, exclusion, scratch, say);
  }
  if (!run.state) {
    ASSIGN_OR_RETURN(run.state, OpenContainer(options, scratch));
  }
  if (run.state) {
    std::optional<ContainerSource::Lower> lower;
    if (run.lower) {
      ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(library.objects(), *run.lower));
      lower = ContainerSource::Lower{library.shared_from_this(), manifest.root};
    }
    const size_t layers = options.layers ? run.layers : run.state->image.layers.size();
    return std::make_unique<ContainerSource>(run.state, layers, std::move(lower), options.interrupted);
  }
  if (options.layers || !options.image.empty() || !options.platform.empty()) {
    return Fail(EINVAL, "it is no container image, which --layers, --image and --platform are for");
  }
  if (options.source == "-") {
    if (options.format.empty() || options.format == "tar") {
      return std::make_unique<TarSource>(options.source, options.name_bytes, options.interrupted);
    }
    return Fail(EINVAL, "standard input is read as a tar archive; a {} must be a file", options.format);
  }
  struct stat st;
  if (stat(options.source.c_str(), &st) != 0) return FailErrno(errno, options.source);
  const bool directory = S_ISDIR(st.st_mode);
  if (options.format == "directory" && !directory) return FailErrno(ENOTDIR, options.source);
  if (directory) {
    if (!options.format.empty() && options.format != "directory") {
      return Fail(EISDIR, "it is a directory, not a disk image of format {}", options.format);
    }
    return std::make_unique<DirectorySource>(options.source, library.path(), options.interrupted);
  }
  if (options.format.empty() && S_ISREG(st.st_mode) && LooksLikeOva(FirstBytes(options.source))) {
    say("taking the disks out of the OVA");
    ASSIGN_OR_RETURN(const std::vector<std::string> disks, ExtractOva(options.source, scratch, options.interrupted));
    return OpenDisks(options, disks, exclusion, scratch, say);
  }
  const bool detected = options.format.empty() && S_ISREG(st.st_mode) && LooksLikeTar(FirstBytes(options.source));
  if (detected || options.format == "tar") {
    return std::make_unique<TarSource>(options.source, options.name_bytes, options.interrupted);
  }
  return OpenDisks(options, {options.source}, exclusion, scratch, say);
}

}  // namespace mirage
