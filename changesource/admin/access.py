"""Who may come in: Django's own users and groups, in the admin's look."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from changesource.admin.choices import TICKED
from changesource.admin.searching import BoundedSearch

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(BoundedSearch, DjangoUserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]  # neither knows the other's types
    """Users."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    filter_horizontal = ()
    formfield_overrides = TICKED


@admin.register(Group)
class GroupAdmin(BoundedSearch, DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]  # as above
    """Groups: what their members may do."""

    filter_horizontal = ()
    formfield_overrides = TICKED
