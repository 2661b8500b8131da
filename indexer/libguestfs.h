// libguestfs, loaded when a disk is first read through it. It brings forty libraries, and to link them takes longer than most
// commands run that never need it; and who has no disks to import need not have it.
#pragma once

#include <guestfs.h>

#include "store/result.h"

namespace mirage {

// What is used of it, each without its "guestfs_".
#define MIRAGE_GUESTFS_FUNCTIONS(X) \
  X(add_drive_opts) X(blockdev_getsize64) X(btrfs_subvolume_get_default) X(btrfs_subvolume_list) X(close) \
  X(create) X(cryptsetup_open) X(debug) X(df) X(download) X(filesize) X(find0) X(free_application2_list) \
  X(free_btrfssubvolume_list) X(free_statns) X(free_statns_list) X(free_statvfs) X(free_xattr_list) \
  X(inspect_get_arch) X(inspect_get_distro) X(inspect_get_hostname) X(inspect_get_major_version) \
  X(inspect_get_minor_version) X(inspect_get_mountpoints) X(inspect_get_package_format) \
  X(inspect_get_product_name) X(inspect_get_type) X(inspect_list_applications2) X(inspect_os) X(is_file) \
  X(is_file_opts) X(last_error) X(launch) X(list_devices) X(list_dm_devices) X(list_filesystems) \
  X(list_md_devices) X(list_partitions) X(lstatns) X(lstatnslist) X(lvm_scan) X(lvs) X(lxattrlist) \
  X(mkmountpoint) X(mount_options) X(mountable_device) X(pop_error_handler) X(pread) X(push_error_handler) \
  X(read_file) X(set_autosync) X(set_backend) X(set_backend_settings) X(set_error_handler) \
  X(set_event_callback) X(set_pgroup) X(statvfs) X(tar_out_opts_argv) X(tune2fs_l) X(umount) X(user_cancel) \
  X(vfs_type) X(vfs_uuid)

struct Libguestfs {
#define MIRAGE_POINTER(name) decltype(&::guestfs_##name) name = nullptr;
  MIRAGE_GUESTFS_FUNCTIONS(MIRAGE_POINTER)
#undef MIRAGE_POINTER
};

// Any number of times, from any thread. ENOTSUP: it is not installed, or lacks a function.
Status LoadLibguestfs();
// Once that has succeeded.
const Libguestfs& Guestfs();

}  // namespace mirage
