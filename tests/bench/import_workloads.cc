#include "tests/bench/workloads.h"

namespace mirage::bench {

// First imports of the fixture's ext4 image, both trees that are on it: read directly, against the same files as a
// directory; and, where virt-tools are installed, against the appliance's tar of it, launch included. The appliance
// takes minutes where hardware virtualisation is missing.
void AddDiskImports(const Fixture& fixture, std::vector<Workload>* workloads) {
  const std::string scratch = Quote(fixture.scratch());
  const std::string mirage = Quote(fixture.binary()) + " -q -L " + scratch + " ";
  const auto fresh = [=] {
    Run("rm -rf " + scratch);
    Run(mirage + "init");
  };
  const std::string image = Quote(fixture.image());
  const Side direct{[=, &fixture] {
                      fixture.UnmountNative();  // else its journal needs recovery
                      Run("cat " + image + " >/dev/null");
                      fresh();
                    },
                    mirage + "import --reader direct " + image + " bench/v1"};
  workloads->push_back({"import-disk",
                        "import of its mounted files",
                        direct,
                        {[=, &fixture] {
                           fixture.MountNative();
                           Run("tar -C " + Quote(fixture.native()) + " -cf - . | cat >/dev/null");
                           fresh();
                         },
                         mirage + "import " + Quote(fixture.native()) + " bench/v1"}});
  if (Output("command -v guestfish || true").empty()) return;
  workloads->push_back({"import-disk-appliance",
                        "guestfish tar-out to /dev/null, with its launch",
                        direct,
                        {[=, &fixture] { fixture.UnmountNative(); },
                         "LIBGUESTFS_BACKEND=direct guestfish --ro --format=raw -a " + image +
                             " run : mount-ro /dev/sda / : tar-out / /dev/null xattrs:true"}});
}

}  // namespace mirage::bench
