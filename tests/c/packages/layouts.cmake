# What a build system would take from its layout, without that build system: its functions are stood in for
# by such as say which archive they are given. FILE is the layout's own CMakeLists.txt.
cmake_minimum_required(VERSION 3.16)

function(archive path)
  cmake_path(GET path PARENT_PATH folder)
  cmake_path(GET folder FILENAME name)
  message("mha: ${name}")
endfunction()

# ESP-IDF
function(idf_component_register)
  set(COMPONENT_LIB mha PARENT_SCOPE)
endfunction()
function(add_prebuilt_library name path)
  archive("${path}")
endfunction()
function(target_link_libraries)
endfunction()

# Zephyr
function(zephyr_include_directories folder)
  if(NOT EXISTS "${folder}/mha.h")
    message(FATAL_ERROR "no mha.h in ${folder}")
  endif()
endfunction()
function(zephyr_library_import name path)
  archive("${path}")
endfunction()

include("${FILE}")
