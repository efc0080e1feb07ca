#ifndef MPX_SYNC_EVENT_H
#define MPX_SYNC_EVENT_H

#include "mproc/sync.h"
#include "sync/notice.h"

mpx_notice *mpx_event_notice(mproc_event *event);

#endif
