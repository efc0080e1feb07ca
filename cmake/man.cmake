# The manual pages, and for each function that a page of several describes a page that leads there.

set(pages mproc.7 mproc_context.3 mproc_error.3 mproc_heap.3 mproc_init.3 mproc_log.3
  mproc_notifier.3 mproc_pipe.3 mproc_process.3 mproc_queue.3 mproc_start_method.3 mproc_sync.3
  mproc_value.3 mproc_version.3 mproc_wait.3)
if(MPROC_BUILD_CLI)
  list(APPEND pages mproc.1)
endif()

foreach(page IN LISTS pages)
  string(REGEX MATCH "[0-9]$" section ${page})
  set(folder ${CMAKE_INSTALL_MANDIR}/man${section})
  install(FILES docs/man/${page} DESTINATION ${folder})

  # "a, b, c \- what they do" below NAME
  file(READ docs/man/${page} text)
  string(REGEX MATCH "\n\\.SH NAME\n[^\\]+" names "${text}")
  string(REGEX MATCHALL "mproc_[a-z0-9_]+" names "${names}")
  foreach(name IN LISTS names)
    if(NOT page STREQUAL "${name}.${section}")
      set(link ${PROJECT_BINARY_DIR}/man/${name}.${section})
      file(GENERATE OUTPUT ${link} CONTENT ".so man${section}/${page}\n")
      install(FILES ${link} DESTINATION ${folder})
    endif()
  endforeach()
endforeach()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man)
