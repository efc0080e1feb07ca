#include "cli.h"
#include "methods.h"

#include <cjson/cJSON.h>

static cJSON *to_json(const method_list *list) {
  cJSON *root = cJSON_CreateObject();
  cJSON_AddStringToObject(root, "default", list->default_name);
  cJSON *methods = cJSON_AddArrayToObject(root, "methods");
  for (size_t i = 0; i < list->count; i++) {
    cJSON *method = cJSON_CreateObject();
    if (!cJSON_AddStringToObject(method, "name", list->methods[i].name) ||
        !cJSON_AddBoolToObject(method, "default", i == 0) ||
        !cJSON_AddStringToObject(method, "good_for", list->methods[i].good_for) ||
        !cJSON_AddStringToObject(method, "avoid_when", list->methods[i].avoid_when) ||
        !cJSON_AddItemToArray(methods, method)) {
      cJSON_Delete(method);
      cJSON_Delete(root);
      return NULL;
    }
  }
  return root;
}

int cli_methods_json(const method_list *list) {
  cJSON *root = to_json(list);
  char *text = root ? cJSON_Print(root) : NULL;
  cJSON_Delete(root);
  if (!text)
    return cli_fail("out of memory");
  puts(text);
  cJSON_free(text);
  return CLI_OK;
}
