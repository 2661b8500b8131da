// One container image among the files of an OCI layout or a docker-save archive: its layers, its platform, and what its
// configuration says. Documents are a stranger's: what is named by a digest must have it.
#pragma once

#include <string>
#include <vector>

#include "indexer/container_files.h"

namespace mirage {

struct ContainerLayer {
  FilePart bytes;       // a tar archive, compressed or not
  std::string name;     // its digest, or its name in the archive
  std::string digest;   // of the bytes, 64 hex digits; empty: not said
  std::string diff_id;  // of the uncompressed archive
  std::string message;  // from the image's history
};

struct ContainerImage {
  std::string name;        // as it is tagged; may be empty
  std::string os, arch;    // libguestfs's words: "linux", "x86_64"
  std::string config;      // what to run: the configuration's `config` object, as JSON; may be empty
  std::vector<ContainerLayer> layers;  // the lowest first
};

struct ContainerChoice {
  std::string format;    // "oci", "docker", or "": OCI where there is such an index
  std::string image;     // a tag or a digest; empty: there must be one image
  std::string platform;  // OS/ARCH[/VARIANT]; empty: this machine's, where there are several
};
// EINVAL: several images, none of that name or platform (the message lists what there is), something that is no
// image of files, a document that does not parse or is not what its digest says. ENOENT: a blob is not there.
Result<ContainerImage> ChooseContainerImage(const ContainerFiles& files, const ContainerChoice& choice);

}  // namespace mirage
