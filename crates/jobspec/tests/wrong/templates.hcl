job "web" {
  type = "system"
  group "web" {
    task "a" {
      driver = "docker"
      config {
        image = "web:1"
      }
      template {
        source      = "local/x.tpl"
        destination = "local/a"
      }
      template {
        data = "x"
      }
      template {
        data        = "x"
        destination = "/local/x"
        perms       = "rw-r--r--"
      }
      template {
        data        = "x"
        destination = "local/../../etc/passwd"
        change_mode = "script"
        change_script {
          command = "/bin/x"
        }
      }
      template {
        data          = "x"
        destination   = "secrets/${NOMAD_TASK_NAME}"
        change_mode   = "signal"
      }
      template {
        data          = "x"
        destination   = "local/s"
        change_signal = "SIGHUP"
        left_delimiter = ""
      }
      template {
        data          = "x"
        destination   = "alloc/shared"
        env           = true
        change_mode   = "signal"
        change_signal = "hup"
      }
      template {
        data        = <<-EOT
          a
          {{ with secret "kv/a" }}{{ .Data.x }}{{ end }}
        EOT
        destination = "${NOMAD_SECRETS_DIR}/b"
        once        = true
      }
    }
    task "b" {
      driver = "docker"
      config {
        image = "web:1"
      }
      template {
        data        = "{{ if true }}"
        destination = "alloc/shared"
        splay       = "10s"
      }
    }
  }
}
