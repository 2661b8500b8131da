// What systemd is told of a service of Type=notify (sd_notify(3)): one datagram to the socket that NOTIFY_SOCKET names.
// Nothing where no service manager started us. A few lines here are less than libsystemd with all it pulls in.
#pragma once

#include <string_view>

namespace mirage {

// "READY=1", "STOPPING=1". Best effort: a failure is logged.
void NotifyServiceManager(std::string_view state);

}  // namespace mirage
